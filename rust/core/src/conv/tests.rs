//! Every kernel row and the planes against the definition, on whole numbers that float32 holds exactly.

use super::filters::Packing;
use super::window::Axis;
use super::*;
use crate::activation::Activation;
use crate::dequantize::Packed;
use crate::format;
use crate::gemm::{Accumulator, Family, Ready, Tiles};
use crate::qparams::QParams;

/// Deterministic whole numbers from `lo` to `hi`.
fn numbers(len: usize, lo: i32, hi: i32, seed: u32) -> Vec<i32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        match state % 7 {
            0 => lo,
            1 => hi,
            _ => lo + (state >> 8) as i32 % (hi - lo + 1),
        }
    };
    (0..len).map(next).collect()
}

/// Batch, channels, filters, groups, kernel, image and window.
type Case = (usize, usize, usize, usize, [usize; 2], [usize; 2], Window);

fn cases() -> Vec<Case> {
    let window = |stride, padding, dilation| Window { stride, padding, dilation };
    let plain = window([1, 1], [0; 4], [1, 1]);
    let same = window([1, 1], [1; 4], [1, 1]);
    vec![
        (1, 2, 1, 1, [1, 1], [1, 1], plain),
        (2, 5, 17, 1, [1, 1], [3, 7], plain),
        (1, 3, 33, 1, [3, 3], [5, 13], same),
        (1, 16, 65, 1, [3, 3], [4, 6], same),
        (2, 4, 5, 1, [3, 2], [9, 11], window([2, 3], [1, 0, 2, 1], [1, 1])),
        (1, 6, 4, 2, [3, 3], [8, 9], window([1, 2], [2, 2, 0, 3], [2, 3])),
        (1, 3, 20, 1, [7, 7], [15, 75], window([2, 2], [3; 4], [1, 1])),
        (2, 17, 3, 1, [2, 5], [6, 6], window([3, 1], [0, 2, 0, 2], [1, 1])),
        (2, 3, 6, 3, [3, 3], [5, 19], same),
        (1, 1, 3, 1, [5, 3], [9, 40], window([2, 3], [2, 1, 2, 1], [1, 2])),
    ]
}

/// Filters of a format, and the codes less their zero points, which differ between filters.
fn filters(case: &Case, name: &str, symmetric: bool) -> (Filters, Vec<i32>) {
    let (_, channels, count, groups, kernel, ..) = *case;
    let format = format::find(name).unwrap();
    let (lo, hi) = format.codes();
    let window = channels / groups * kernel[0] * kernel[1];
    let codes = numbers(count * window, lo, hi, 5);
    let zero = |filter: usize| if symmetric { 0 } else { (lo + hi) / 2 + (filter % 5) as i32 };
    let zero_point: Vec<i32> = (0..count).map(zero).collect();
    let mut packed = vec![0; (count * window * format.bits() as usize).div_ceil(8)];
    crate::pack(&codes, format, &mut packed).unwrap();
    let shape = [count, channels / groups, kernel[0], kernel[1]];
    let grid = Grid::new(&shape, &[1, shape[1], shape[2], shape[3]]).unwrap();
    let params = QParams { scale: &vec![1.0; count], zero_point: &zero_point, levels: &[] };
    let weight = Packed { codes: &packed, format, grid: &grid, params };
    let differences = codes.iter().enumerate().map(|(i, code)| code - zero_point[i / window]).collect();
    (Filters::new(weight, groups).unwrap(), differences)
}

fn naive(x: &[i32], w: &[i32], case: &Case, [rows, columns]: [Axis; 2]) -> Vec<f32> {
    let (batch, channels, count, groups, [height, width], [h, l], _) = *case;
    let inputs = channels / groups;
    let mut out = Vec::new();
    for (image, filter) in (0..batch).flat_map(|image| (0..count).map(move |filter| (image, filter))) {
        let first = image * channels + filter / (count / groups) * inputs;
        for (oy, ox) in (0..rows.out).flat_map(|oy| (0..columns.out).map(move |ox| (oy, ox))) {
            let mut sum = 0;
            for (c, (i, j)) in
                (0..inputs).flat_map(|c| (0..height * width).map(move |at| (c, (at / width, at % width))))
            {
                let y = (oy * rows.stride + i * rows.dilation).wrapping_sub(rows.before);
                let z = (ox * columns.stride + j * columns.dilation).wrapping_sub(columns.before);
                if y < h && z < l {
                    sum += x[((first + c) * h + y) * l + z]
                        * w[((filter * inputs + c) * height + i) * width + j];
                }
            }
            out.push(sum as f32);
        }
    }
    out
}

/// Calls `check(what, job, packing, expected)` for every case, input and kind of weight.
fn for_each_job(floats: bool, nibbles: bool, mut check: impl FnMut(&str, Job<'_>, &Packing, &[f32])) {
    let inputs: &[(&str, i32)] = if floats { &[("float", 0)] } else { &[("int8", -3), ("uint8", 200)] };
    for case in cases() {
        let (batch, channels, .., [height, width], window) = case;
        for (weight, symmetric) in
            if nibbles { [("int4", true), ("uint3", false)] } else { [("int8", true), ("uint8", false)] }
        {
            let (filters, w) = filters(&case, weight, symmetric);
            for (name, zero_point) in inputs {
                let (lo, hi) = if floats { (-128, 127) } else { format::find(name).unwrap().codes() };
                let len = batch * channels * height * width;
                let whole = numbers(len, lo - zero_point, hi - zero_point, 9);
                let x: Vec<f32> = whole.iter().map(|x| *x as f32).collect();
                let axes = window.axes([height, width], filters.kernel).unwrap();
                let affine =
                    (!floats).then_some(Affine { scale: 1.0, zero_point: *zero_point, qmin: lo, qmax: hi });
                let output = Float { bias: None, activation: Activation::None };
                let [rows, columns] = axes;
                let isa = Isa::detected();
                let job = Job { isa, x: &x, filters: &filters, batch, rows, columns, affine, output };
                let expected = naive(&whole, &w, &case, axes);
                check(&format!("{name} · {weight}, {case:?}"), job, &filters.packing, &expected);
            }
        }
    }
}

fn check_family<C: Accumulator, F: Family<C = C> + Ready<C>>(floats: bool, nibbles: bool) {
    for_each_job(floats, nibbles, |what, job, packing, expected| {
        let Packing::Panels(panels) = packing else { return };
        for tiles in Tiles::<F>::all() {
            let mut out = vec![f32::NAN; expected.len()];
            tiles::convolve(tiles, &job, panels, &mut out).unwrap();
            assert_eq!(out, expected, "{what} on {:?} with {} rows", tiles.isa(), tiles.rows());
        }
    });
}

#[test]
fn every_kernel_convolves_as_the_definition_says() {
    use crate::gemm::{
        BytesI8, BytesN4, BytesU4, Floats, FloatsI8, FloatsU4, Pairs, PairsI8, SignedI8, SignedU4,
    };
    check_family::<i32, BytesI8>(false, false);
    check_family::<i32, BytesI8>(false, true);
    check_family::<i32, BytesU4>(false, true);
    check_family::<i32, SignedI8>(false, false);
    check_family::<i32, SignedI8>(false, true);
    check_family::<i32, SignedU4>(false, true);
    check_family::<i32, BytesN4>(false, true);
    check_family::<i32, Pairs>(false, false);
    check_family::<i32, Pairs>(false, true);
    check_family::<i32, PairsI8>(false, false);
    check_family::<f32, Floats>(true, false);
    check_family::<f32, Floats>(true, true);
    check_family::<f32, FloatsI8>(true, false);
    check_family::<f32, FloatsU4>(true, true);
}

#[test]
fn planes_are_filtered_as_the_definition_says_on_every_instruction_set() {
    for (floats, nibbles) in [(false, false), (false, true), (true, false), (true, true)] {
        for_each_job(floats, nibbles, |what, job, packing, expected| {
            let Packing::Planes(packed) = packing else { return };
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; expected.len()];
                planes::run(&Job { isa, ..job }, packed, &mut out).unwrap();
                assert_eq!(out, expected, "{what} on {isa:?}");
            }
        });
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let window = Window { stride: [1, 1], padding: [0; 4], dilation: [1, 1] };
    let (filters, _) = filters(&(1, 4, 3, 1, [3, 3], [5, 5], window), "int8", true);
    let finish = Finish { bias: None, activation: Activation::None };
    let conv = Conv2d { filters: &filters, window, input: None, finish };
    let x = [0.0; 100];
    let refuse =
        |shape, conv: &Conv2d<'_>, len| conv2d(&x, shape, conv, &mut vec![0.0; len]).unwrap_err().to_string();
    let error = refuse([1, 3, 5, 5], &conv, 27);
    assert_eq!(error, "x has shape (1, 3, 5, 5), expected (batch, 4, height, width)");
    let error = refuse([1, 4, 5, 5], &conv, 26);
    assert_eq!(error, "out has shape (26,), expected the elements of [1, 3, 3, 3]");
    let error = refuse([1, 4, 50, 2], &conv, 27);
    assert_eq!(error, "width of x is 2 with 0 of padding, expected at least 3, the reach of the window");
    let far = Window { dilation: [1, usize::MAX], ..window };
    let error = refuse([1, 4, 5, 5], &Conv2d { window: far, ..conv }, 27);
    assert!(error.ends_with("at least more pixels than there can be, the reach of the window"), "{error}");
    let still = Window { stride: [0, 1], ..window };
    assert_eq!(
        refuse([1, 4, 5, 5], &Conv2d { window: still, ..conv }, 27),
        "stride is 0, expected at least 1"
    );
    let bias = Finish { bias: Some(&[0.0; 2]), ..finish };
    let error = refuse([1, 4, 5, 5], &Conv2d { finish: bias, ..conv }, 27);
    assert_eq!(error, "bias has shape (2,), expected (3,)");
    let target =
        crate::Target::new(format::find("int8").unwrap(), true, true, crate::ScaleType::Float32).unwrap();
    let input = Input::per_token(target).unwrap();
    let error = refuse([1, 4, 5, 5], &Conv2d { input: Some(&input), ..conv }, 27);
    assert_eq!(error, "input is scales for parts of a row, expected one scale for all images");
}

#[test]
fn weights_that_cannot_be_packed_are_refused() {
    let pack = |shape: &[usize], block: &[usize], groups| {
        let grid = Grid::new(shape, block).unwrap();
        let (scale, zero_point) = (vec![1.0; grid.cells()], vec![0; grid.cells()]);
        let params = QParams { scale: &scale, zero_point: &zero_point, levels: &[] };
        let codes = vec![0; grid.len()];
        let format = format::find("int8").unwrap();
        Filters::new(Packed { codes: &codes, format, grid: &grid, params }, groups)
            .map(|filters| filters.nbytes())
    };
    assert!(pack(&[4, 2, 1, 1], &[1, 2, 1, 1], 2).is_ok());
    assert!(pack(&[4, 2, 1, 1], &[4, 2, 1, 1], 4).is_ok());
    let error = pack(&[4, 2, 1, 1], &[1, 1, 1, 1], 2).unwrap_err().to_string();
    assert_eq!(
        error,
        "weight is cut into several cells a filter, expected one for each filter, or one for all"
    );
    let error = pack(&[4, 2, 1, 1], &[1, 2, 1, 1], 3).unwrap_err().to_string();
    assert_eq!(error, "groups is 3, expected a divisor of the 4 filters");
    assert!(pack(&[4, 2], &[1, 2], 1).is_err() && pack(&[4, 0, 1, 1], &[1, 1, 1, 1], 1).is_err());
}
