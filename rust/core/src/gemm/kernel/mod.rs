//! The kernels: one row each in the tables below; selection, tests, benches and `qrs.kernels()` walk them.
//!
//! A kernel adds a tile of products to its accumulators: `acc[row][panel] += Σ_k a[row][k] · b[panel][k]`, over
//! rows of A as they lie in memory (neighbours along k together) and panels of sixteen columns of B. It knows
//! nothing of scales, zero points, threads or the edges of the matrix.
//!
//! `LineI8` and `LineU4` kernels read the stored panels as they are; `LineN4`, `LineI16` and `LineF32` kernels read
//! panels that the driver has widened into a scratch buffer, which pays as soon as several row tiles use them.

#![allow(clippy::needless_range_loop, reason = "accumulators, rows and lines are indexed in step")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neondot;
#[cfg(target_arch = "aarch64")]
mod neoni8mm;
mod portable;

use crate::isa::Isa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::mem::Vector;
use crate::mem::{Line, LineF32, LineI8, LineI16, LineN4, LineU4};

/// The operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a, A, B> {
    /// Words of A; row `r` starts at `r · stride`.
    pub(crate) a: &'a [A],
    /// Words from one row of A to the next.
    pub(crate) stride: usize,
    /// Rows of A, from 1 to the kernel's `mr`.
    pub(crate) rows: usize,
    /// Lines of B; panel `p` starts at `p · panel_stride`.
    pub(crate) b: &'a [B],
    /// Lines from one panel of B to the next.
    pub(crate) panel_stride: usize,
    /// Panels of B, from 1 to the kernel's `panels`.
    pub(crate) panels: usize,
    /// Lines of each panel to multiply: the length along k.
    pub(crate) lines: usize,
}

impl<'a, A, B> Tile<'a, A, B> {
    /// The words of row `row`, `words` for each line.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, words: usize) -> &'a [A] {
        &self.a[row * self.stride..][..self.lines * words]
    }

    /// The words of every row as groups of `WORDS`, those that meet one line of B.
    #[inline(always)]
    pub(crate) fn rows_of<const WORDS: usize, const ROWS: usize>(&self) -> [&'a [[A; WORDS]]; ROWS] {
        std::array::from_fn(|row| self.row(row, WORDS).as_chunks().0)
    }

    /// The lines of panel `panel`.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &'a [B] {
        &self.b[panel * self.panel_stride..][..self.lines]
    }

    /// The lines of every panel.
    #[inline(always)]
    pub(crate) fn panels_of<const PANELS: usize>(&self) -> [&'a [B]; PANELS] {
        std::array::from_fn(|panel| self.panel(panel))
    }
}

// Closures written inside a function with target features carry those features, and `array::from_fn`, which does
// not, cannot inline them: kernels use loops, and these functions where an array is to be made.

/// Line `l` of every panel.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn load_lines<V: Vector, T: Copy, const N: usize, const PANELS: usize>(
    b: &[&[Line<T, N>]; PANELS],
    l: usize,
) -> [V; PANELS] {
    std::array::from_fn(|panel| b[panel][l].load(0))
}

/// The accumulators of a tile, each line as `V`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn load_sums<V: Vector, C: Copy, const PANELS: usize, const ROWS: usize>(
    acc: &[Line<C, 16>],
) -> [[V; PANELS]; ROWS] {
    std::array::from_fn(|row| std::array::from_fn(|panel| acc[row * PANELS + panel].load(0)))
}

/// Writes what [`load_sums`] read.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn store_sums<V: Vector, C: Copy, const PANELS: usize, const ROWS: usize>(
    sums: [[V; PANELS]; ROWS],
    acc: &mut [Line<C, 16>],
) {
    for (line, sum) in acc.iter_mut().zip(sums.as_flattened()) {
        line.store(0, *sum);
    }
}

/// The accumulators of a tile: row `r`, panel `p` at `r · panels + p`.
pub(crate) type Accumulators<'a, C> = &'a mut [Line<C, 16>];

/// One kernel.
pub(crate) struct Kernel<A: 'static, B: 'static, C: 'static> {
    /// `gemm_{a}_{b}_{acc}_{mr}x{nr}_{isa}`.
    pub(crate) name: &'static str,
    pub(crate) isa: Isa,
    /// Rows of a full tile.
    pub(crate) mr: usize,
    /// Panels of a full tile.
    pub(crate) panels: usize,
    /// The largest m for which this row is chosen before those below it.
    pub(crate) max_m: usize,
    /// Safe to call once `isa.supported()` holds.
    pub(crate) tile: unsafe fn(Tile<'_, A, B>, Accumulators<'_, C>),
}

/// Calls `$tile::<ROWS, PANELS>` for the numbers in `$t`; the lists are what is compiled.
macro_rules! by_shape {
    ($t:expr, $acc:expr, $tile:ident, [$($rows:literal)*] x $panels:tt) => {
        match $t.rows {
            $($rows => by_shape!(@ $t, $acc, $tile, $rows, $panels),)*
            _ => unreachable!("the driver asks for shapes up to the kernel's own"),
        }
    };
    (@ $t:expr, $acc:expr, $tile:ident, $rows:literal, [$($panels:literal)*]) => {
        match $t.panels {
            $($panels => $tile::<$rows, $panels>($t, $acc),)*
            _ => unreachable!("the driver asks for shapes up to the kernel's own"),
        }
    };
}
use by_shape;

/// A word of A: what one broadcast reads.
pub(crate) trait Word: Copy + Send + Sync + 'static {
    /// Elements along k in a word.
    const K: usize;
    /// The name in kernel names.
    #[cfg(test)]
    const NAME: &'static str;
}
/// Four uint8 codes that are neighbours along k.
pub(crate) type WordU8 = [u8; 4];
/// Four int8 codes that are neighbours along k.
pub(crate) type WordI8 = [i8; 4];
/// Two int16 values, k and k + 2: the order in which shifts alone widen a line of bytes.
pub(crate) type WordI16 = [i16; 2];

impl Word for WordU8 {
    const K: usize = 4;
    #[cfg(test)]
    const NAME: &'static str = "u8";
}
impl Word for WordI8 {
    const K: usize = 4;
    #[cfg(test)]
    const NAME: &'static str = "i8";
}
impl Word for WordI16 {
    const K: usize = 2;
    #[cfg(test)]
    const NAME: &'static str = "i16";
}
impl Word for f32 {
    const K: usize = 1;
    #[cfg(test)]
    const NAME: &'static str = "f32";
}

/// A line of B.
pub(crate) trait Lines: Copy + Send + Sync + 'static {
    /// Elements along k in a line, for each of its sixteen columns.
    const K: usize;
    /// The name in kernel names.
    #[cfg(test)]
    const NAME: &'static str;
}
impl Lines for LineI8 {
    const K: usize = 4;
    #[cfg(test)]
    const NAME: &'static str = "i8";
}
impl Lines for LineU4 {
    const K: usize = 8;
    #[cfg(test)]
    const NAME: &'static str = "u4";
}
impl Lines for LineN4 {
    const K: usize = 4;
    #[cfg(test)]
    const NAME: &'static str = "n4";
}
impl Lines for LineI16 {
    const K: usize = 2;
    #[cfg(test)]
    const NAME: &'static str = "i16";
}
impl Lines for LineF32 {
    const K: usize = 1;
    #[cfg(test)]
    const NAME: &'static str = "f32";
}

/// A combination of operand and accumulator types with its table, best row first.
pub(crate) trait Family: 'static {
    type A: Word;
    type B: Lines;
    type C: 'static;
    const TABLE: &'static [Kernel<Self::A, Self::B, Self::C>];
    /// The instruction sets of the rows, as in [`crate::isa::Op::ISAS`].
    const ISAS: u8 = {
        let (mut bits, mut row) = (0, 0);
        while row < Self::TABLE.len() {
            bits |= Self::TABLE[row].isa.bit();
            row += 1;
        }
        bits
    };

    /// The first row that `isa` runs and that is meant for `m` rows.
    fn select(isa: Isa, m: usize) -> Option<&'static Kernel<Self::A, Self::B, Self::C>> {
        Self::TABLE.iter().find(|row| isa.includes(row.isa) && row.isa.supported() && m <= row.max_m)
    }
}

macro_rules! families {
    ($($(#[doc = $doc:literal])* $family:ident: $a:ty, $b:ty => $c:ty [$($(#[cfg($cfg:meta)])? $row:path;)*])*) => {
        $($(#[doc = $doc])*
        pub(crate) struct $family;
        impl Family for $family {
            type A = $a;
            type B = $b;
            type C = $c;
            const TABLE: &'static [Kernel<$a, $b, $c>] = &[$($(#[cfg($cfg)])? $row,)*];
        })*

        /// Every kernel of this build: name, instruction set and whether this machine runs it.
        pub fn kernels() -> Vec<(&'static str, Isa, bool)> {
            let mut all = Vec::new();
            $(all.extend($family::TABLE.iter().map(|row| (row.name, row.isa, row.isa.supported())));)*
            all
        }
    };
}

families! {
    /// Products of unsigned with signed bytes on stored int8 panels.
    BytesI8: WordU8, LineI8 => i32 [
        #[cfg(target_arch = "x86_64")] avx512vnni::BYTES_I8;
        #[cfg(target_arch = "x86_64")] avxvnni::BYTES_I8_ROW;
        #[cfg(target_arch = "x86_64")] avxvnni::BYTES_I8;
    ]
    /// Products of unsigned bytes on stored 4-bit panels.
    BytesU4: WordU8, LineU4 => i32 [
        #[cfg(target_arch = "x86_64")] avx512vnni::BYTES_U4;
        #[cfg(target_arch = "x86_64")] avxvnni::BYTES_U4_ROW;
        #[cfg(target_arch = "x86_64")] avxvnni::BYTES_U4;
        #[cfg(target_arch = "x86_64")] avx2::BYTES_U4_ROW;
        #[cfg(target_arch = "x86_64")] avx2::BYTES_U4;
    ]
    /// Products of unsigned bytes with 4-bit codes, a byte each: pairs of them cannot saturate 16 bits.
    BytesN4: WordU8, LineN4 => i32 [
        #[cfg(target_arch = "x86_64")] avx2::BYTES_N4;
    ]
    /// Products of signed bytes on stored int8 panels.
    SignedI8: WordI8, LineI8 => i32 [
        #[cfg(target_arch = "aarch64")] neondot::SIGNED_I8_ROW;
        #[cfg(target_arch = "aarch64")] neoni8mm::SIGNED_I8;
        #[cfg(target_arch = "aarch64")] neondot::SIGNED_I8;
        #[cfg(target_arch = "aarch64")] neon::SIGNED_I8;
    ]
    /// Products of signed bytes on stored 4-bit panels.
    SignedU4: WordI8, LineU4 => i32 [
        #[cfg(target_arch = "aarch64")] neondot::SIGNED_U4_ROW;
        #[cfg(target_arch = "aarch64")] neoni8mm::SIGNED_U4;
        #[cfg(target_arch = "aarch64")] neondot::SIGNED_U4;
        #[cfg(target_arch = "aarch64")] neon::SIGNED_U4;
    ]
    /// 16-bit pair products on widened panels: exact on every CPU.
    Pairs: WordI16, LineI16 => i32 [
        #[cfg(target_arch = "x86_64")] avx512::PAIRS;
        #[cfg(target_arch = "x86_64")] avx2::PAIRS;
        portable::PAIRS;
        #[cfg(test)] portable::PAIRS_ODD;
    ]
    /// 16-bit pair products on stored int8 panels, for few rows.
    PairsI8: WordI16, LineI8 => i32 [
        #[cfg(target_arch = "x86_64")] avx2::PAIRS_I8_ROW;
        #[cfg(target_arch = "x86_64")] avx2::PAIRS_I8;
    ]
    /// float32 products on widened panels.
    Floats: f32, LineF32 => f32 [
        #[cfg(target_arch = "x86_64")] avx512::FLOATS;
        #[cfg(target_arch = "x86_64")] avx2::FLOATS;
        #[cfg(target_arch = "aarch64")] neon::FLOATS;
        portable::FLOATS;
    ]
    /// float32 products on stored int8 panels, for few rows.
    FloatsI8: f32, LineI8 => f32 [
        #[cfg(target_arch = "x86_64")] avx512::FLOATS_I8_ROW;
        #[cfg(target_arch = "x86_64")] avx512::FLOATS_I8;
        #[cfg(target_arch = "x86_64")] avx2::FLOATS_I8_ROW;
        #[cfg(target_arch = "x86_64")] avx2::FLOATS_I8;
        #[cfg(target_arch = "aarch64")] neon::FLOATS_I8_ROW;
        #[cfg(target_arch = "aarch64")] neon::FLOATS_I8;
    ]
    /// float32 products on stored 4-bit panels, for few rows.
    FloatsU4: f32, LineU4 => f32 [
        #[cfg(target_arch = "x86_64")] avx512::FLOATS_U4_ROW;
        #[cfg(target_arch = "x86_64")] avx512::FLOATS_U4;
        #[cfg(target_arch = "x86_64")] avx2::FLOATS_U4_ROW;
        #[cfg(target_arch = "x86_64")] avx2::FLOATS_U4;
        #[cfg(target_arch = "aarch64")] neon::FLOATS_U4_ROW;
        #[cfg(target_arch = "aarch64")] neon::FLOATS_U4;
    ]
}
