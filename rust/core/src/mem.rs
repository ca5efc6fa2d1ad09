//! Aligned lines, vector loads and stores, zeroed buffers and disjoint splitting: the unsafe room.
//!
//! Everything here has a safe face; what makes it sound is said at each block.

use crate::error::Error;
use std::marker::PhantomData;
use std::ops::Range;

/// 64 bytes on a cache line: the unit in which panels are stored and read. `N · size_of::<T>()` is 64.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Line<T, const N: usize>(pub [T; N]);

/// Sixteen columns of four int8 codes that are neighbours along k.
pub type LineI8 = Line<i8, 64>;
/// Sixteen columns of eight 4-bit codes: low nibbles are k = 0..4, high nibbles k = 4..8.
pub type LineU4 = Line<u8, 64>;
/// Sixteen columns of four 4-bit codes that are neighbours along k, a byte each.
pub(crate) type LineN4 = Line<Nibble, 64>;
/// Sixteen columns of two int16 values that are neighbours along k.
pub type LineI16 = Line<i16, 32>;
/// One int32 for each of sixteen columns.
pub type LineI32 = Line<i32, 16>;
/// One float32 for each of sixteen columns.
pub type LineF32 = Line<f32, 16>;

impl<T: Copy + Default, const N: usize> Default for Line<T, N> {
    fn default() -> Self {
        Self::zero()
    }
}

impl<T: Copy + Default, const N: usize> Line<T, N> {
    /// All elements zero.
    pub fn zero() -> Self {
        const { assert!(N * size_of::<T>() == 64) };
        Line([T::default(); N])
    }
}

/// A code from 0 to 15 in a byte of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(transparent)]
pub(crate) struct Nibble(pub(crate) u8);

/// Plain numbers: any bits are a value.
pub(crate) trait Number: Copy + Default {}
impl Number for i8 {}
impl Number for u8 {}
impl Number for i16 {}
impl Number for u16 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for f32 {}

impl<T: Number, const N: usize> Line<T, N> {
    /// The same 64 bytes read as numbers of another type.
    #[inline(always)]
    pub(crate) fn cast<U: Number, const M: usize>(&self) -> &Line<U, M> {
        const { assert!(N * size_of::<T>() == 64 && M * size_of::<U>() == 64) };
        // SAFETY: both types are 64 bytes at an alignment of 64 (checked above, `repr(align)`), and any bits
        // are a value of a `Number`.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }
}

/// The elements of lines that lie side by side.
#[inline(always)]
pub(crate) fn elements<T: Number, const N: usize>(lines: &mut [Line<T, N>]) -> &mut [T] {
    const { assert!(N * size_of::<T>() == 64) };
    // SAFETY: a line is exactly N elements without padding (checked above, `repr(C, align(64))`), so the lines of a
    // slice are `len · N` initialised elements side by side, borrowed mutably through `lines` alone.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * N) }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vector {
    use super::Line;
    #[cfg(target_arch = "aarch64")]
    use super::Number;
    #[cfg(target_arch = "aarch64")]
    use std::arch::aarch64::{float32x4_t, int8x8_t, int8x16_t, int32x4_t, uint8x16_t};
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::{__m128i, __m256, __m256i, __m512, __m512i};

    /// Plain vector types and arrays of them: any bits are a value.
    pub trait Vector: Copy {}
    impl<V: Vector, const N: usize> Vector for [V; N] {}

    macro_rules! vectors {
        ($arch:literal: $($vector:ident)*) => { $(#[cfg(target_arch = $arch)] impl Vector for $vector {})* };
    }
    vectors!("x86_64": __m128i __m256 __m256i __m512 __m512i);
    vectors!("aarch64": float32x4_t int8x8_t int8x16_t int32x4_t uint8x16_t);

    /// The vector with the bits of these numbers.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub fn vector<V: Vector, T: Number, const M: usize, const N: usize>(numbers: &[[T; M]; N]) -> V {
        const { assert!(size_of::<V>() == size_of::<[[T; M]; N]>()) };
        // SAFETY: the sizes are equal by the assertion, `read_unaligned` asks for no alignment, and any
        // initialised bytes are a valid vector.
        unsafe { std::ptr::from_ref(numbers).cast::<V>().read_unaligned() }
    }

    impl<T: Copy, const N: usize> Line<T, N> {
        /// The vector at position `part`, counted in vectors of this size.
        #[inline(always)]
        pub fn load<V: Vector>(&self, part: usize) -> V {
            assert!((part + 1) * size_of::<V>() <= size_of::<Self>());
            // SAFETY: the range is inside the line by the assertion, which disappears for a constant `part`;
            // `read_unaligned` asks for no alignment, and any initialised bytes are a valid vector.
            unsafe { std::ptr::from_ref(self).cast::<V>().add(part).read_unaligned() }
        }

        /// Writes the vector at position `part`, counted in vectors of this size.
        #[inline(always)]
        pub fn store<V: Vector>(&mut self, part: usize, value: V) {
            assert!((part + 1) * size_of::<V>() <= size_of::<Self>());
            // SAFETY: the range is inside the line by the assertion; a line holds plain numbers, for which any
            // bits are a value.
            unsafe { std::ptr::from_mut(self).cast::<V>().add(part).write_unaligned(value) }
        }
    }
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use vector::Vector;
#[cfg(target_arch = "aarch64")]
pub(crate) use vector::vector;

/// A vector of `len` zeros.
///
/// # Errors
/// [`Error::Memory`] where the allocator refuses.
pub(crate) fn zeroed<T: Copy + Default>(len: usize) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) })?;
    out.resize(len, T::default());
    Ok(out)
}

/// How far ahead [`prefetch`] looks, in bytes: a page, where the fetcher of the CPU stops. Quantizing 256 MiB to int8
/// on Zen 3 takes a fifth less time than without; half a page does nearly as well.
const AHEAD: usize = 4096;

/// Float32 elements, 32 MiB, that most last caches do not hold: they are fetched ahead.
pub(crate) const FAR: usize = 1 << 23;

/// Asks for the cache lines a page after `x`, which a pass over memory reads or writes soon.
#[inline(always)]
pub(crate) fn prefetch<const N: usize>(x: &[f32; N]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..N / 16 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = x.as_ptr().cast::<i8>().wrapping_add(AHEAD + 64 * line);
        // SAFETY: a prefetch changes no value and never faults, whatever the address; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// A mutable matrix cut into rectangles that several threads write at once.
///
/// The cuts are fixed at construction, so two different rectangles never share an element; handing out the
/// same rectangle twice at a time is what [`Cut::rectangle`]'s caller must rule out.
pub(crate) struct Cut<'a, T> {
    start: *mut T,
    stride: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Cut` gives out only disjoint rectangles of a `&mut [T]`; sharing it moves `T`s' references between
// threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for Cut<'_, T> {}

impl<'a, T> Cut<'a, T> {
    /// Cuts the matrix `data` of `stride` elements a row at the given row and column numbers, which ascend and
    /// start with 0.
    pub(crate) fn new(data: &'a mut [T], stride: usize, rows: Vec<usize>, columns: Vec<usize>) -> Self {
        assert!(rows.first() == Some(&0) && rows.is_sorted());
        assert!(columns.first() == Some(&0) && columns.is_sorted());
        assert!(columns.last().is_some_and(|last| *last <= stride));
        assert!(rows.last().is_some_and(|last| last.saturating_mul(stride) <= data.len()));
        Cut { start: data.as_mut_ptr(), stride, rows, columns, owner: PhantomData }
    }

    /// How many rectangles there are.
    pub(crate) fn len(&self) -> usize {
        (self.rows.len() - 1) * (self.columns.len() - 1)
    }

    /// The rectangle number `index`, row by row.
    ///
    /// # Safety
    /// While the result lives, no other call with the same `index` may be made.
    pub(crate) unsafe fn rectangle(&self, index: usize) -> Rectangle<'_, T> {
        let bands = self.columns.len() - 1;
        assert!(index < self.len());
        let (row, band) = (index / bands, index % bands);
        Rectangle {
            start: self.start,
            stride: self.stride,
            rows: self.rows[row]..self.rows[row + 1],
            columns: self.columns[band]..self.columns[band + 1],
            owner: PhantomData,
        }
    }
}

/// One rectangle of a [`Cut`] matrix, owned by one thread.
pub(crate) struct Rectangle<'a, T> {
    start: *mut T,
    stride: usize,
    /// The rows it covers in the whole matrix.
    pub(crate) rows: Range<usize>,
    /// The columns it covers in the whole matrix.
    pub(crate) columns: Range<usize>,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Rectangle<'_, T> {
    /// Elements `columns` of row `row`, both counted in the whole matrix and inside the rectangle.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(self.rows.contains(&row) && columns.start <= columns.end);
        assert!(self.columns.start <= columns.start && columns.end <= self.columns.end);
        // SAFETY: the rectangle lies inside the matrix (checked by `Cut::new`) and belongs to this value alone
        // (the contract of `Cut::rectangle`); the assertions keep the range inside the rectangle.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(row * self.stride + columns.start), columns.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_cover_the_matrix_once() {
        let mut data = vec![0u8; 35];
        let cut = Cut::new(&mut data, 7, vec![0, 2, 5], vec![0, 3, 4, 7]);
        for index in 0..cut.len() {
            // SAFETY: each index is asked for once.
            let mut rectangle = unsafe { cut.rectangle(index) };
            for row in rectangle.rows.clone() {
                let columns = rectangle.columns.clone();
                rectangle.row(row, columns).iter_mut().for_each(|x| *x += 1 + index as u8);
            }
        }
        let row = [1, 1, 1, 2, 3, 3, 3];
        assert_eq!(data[..7], row);
        assert_eq!(data[14..21], row.map(|x| x + 3));
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_rectangle_refuses_columns_outside_of_it() {
        let mut data = vec![0u8; 4];
        let cut = Cut::new(&mut data, 4, vec![0, 1], vec![0, 2, 4]);
        // SAFETY: asked for once.
        unsafe { cut.rectangle(0) }.row(0, 1..3);
    }

    #[test]
    fn an_impossible_allocation_is_an_error() {
        assert_eq!(zeroed::<u64>(usize::MAX / 8).unwrap_err(), Error::Memory { bytes: usize::MAX / 8 * 8 });
    }
}
