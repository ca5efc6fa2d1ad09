//! NumPy arrays as slices, with our own checks and messages.
//!
//! An array comes in as any object and leaves as `&[T]` or `&mut [T]`, after its dtype, byte order, layout,
//! alignment and, for an output, its writability and its distance from every other array of the call were
//! checked. rust-numpy's own borrow flags are not used: they panic on a read-only output, and one call fails for
//! what another thread's call borrows.

use crate::error::{InternalError, type_error, value_error};
use numpy::npyffi::{
    _PyArray_GET_ITEM_DATA, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE, NPY_TYPES, PY_ARRAY_API,
    PyArrayObject_fields, npy_intp,
};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// The types of elements that cross the border: plain numbers, for which any bits are a value.
pub(crate) trait Element: numpy::Element + Copy {
    /// What NumPy calls the type.
    const NAME: &'static str;
    /// NumPy's letter for the family: `i`, `u` or `f`.
    const KIND: u8;
}

macro_rules! elements {
    ($($element:ty, $name:literal, $kind:literal;)*) => {
        $(impl Element for $element {
            const NAME: &'static str = $name;
            const KIND: u8 = $kind;
        })*
    };
}

elements! {
    f32, "float32", b'f';
    f64, "float64", b'f';
    i8, "int8", b'i';
    i16, "int16", b'i';
    i32, "int32", b'i';
    i64, "int64", b'i';
    u8, "uint8", b'u';
    u16, "uint16", b'u';
}

/// What comes from Python where an array is expected.
pub(crate) type Argument<'a, 'py> = &'a Bound<'py, PyAny>;

/// The most arrays that one call borrows.
const MAX_ARRAYS: usize = 8;

/// The arrays of one call: an output shares no byte with another one.
///
/// A call borrows all its arrays through one `Arrays`:
/// ```ignore
/// let mut arrays = Arrays::new();
/// let x: &[f32] = arrays.read("x", x)?;
/// let out: &mut [f32] = arrays.write("out", out)?;
/// call(py, || qrs_core::softmax(x, out))
/// ```
#[derive(Default)]
pub(crate) struct Arrays {
    spans: [Span; MAX_ARRAYS],
    len: usize,
}

/// The addresses of an array's bytes.
#[derive(Default, Clone, Copy)]
struct Span {
    name: &'static str,
    start: usize,
    end: usize,
    written: bool,
}

impl Arrays {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The elements of `array` in C order.
    pub(crate) fn read<'a, T: Element>(
        &mut self,
        name: &'static str,
        array: Argument<'a, '_>,
    ) -> PyResult<&'a [T]> {
        let (data, len) = self.borrow::<T>(name, array, false)?;
        // SAFETY: `borrow` found `len` contiguous, aligned elements at `data`, in memory that the array keeps
        // alive, and `array` keeps the array alive for 'a. No `write` of this call overlaps it. A thread that
        // writes to the array meanwhile breaks NumPy's own rules; as any bits are a value and the core bounds
        // every index, it gets arbitrary numbers.
        Ok(unsafe { slice_of(data, len) })
    }

    /// Like [`Arrays::read`], for an argument that may be `None`.
    pub(crate) fn read_optional<'a, T: Element>(
        &mut self,
        name: &'static str,
        array: Option<Argument<'a, '_>>,
    ) -> PyResult<Option<&'a [T]>> {
        array.map(|array| self.read(name, array)).transpose()
    }

    /// The elements of the writable `array` in C order.
    #[allow(clippy::mut_from_ref, reason = "what is shared is the reference to the array, not its memory")]
    pub(crate) fn write<'a, T: Element>(
        &mut self,
        name: &'static str,
        array: Argument<'a, '_>,
    ) -> PyResult<&'a mut [T]> {
        let (data, len) = self.borrow::<T>(name, array, true)?;
        // SAFETY: as in `read`; `borrow` also found the memory writable and disjoint from every array that this
        // call borrowed before, and refuses later ones that overlap it, so no other slice reaches it.
        Ok(unsafe { slice_of_mut(data, len) })
    }

    /// The bytes of the writable `array` of int8 or uint8, for codes whose sign the format tells.
    #[allow(clippy::mut_from_ref, reason = "as for `write`")]
    pub(crate) fn write_bytes<'a>(
        &mut self,
        name: &'static str,
        array: Argument<'a, '_>,
    ) -> PyResult<&'a mut [u8]> {
        if !holds::<i8>(array) {
            return self.write(name, array);
        }
        let (data, len) = self.borrow::<i8>(name, array, true)?;
        // SAFETY: as in `write`; int8 and uint8 have one size and alignment, and any bits are a value of both.
        Ok(unsafe { slice_of_mut(data.cast(), len) })
    }

    /// Checks `array` and notes its addresses.
    fn borrow<T: Element>(
        &mut self,
        name: &'static str,
        array: Argument<'_, '_>,
        written: bool,
    ) -> PyResult<(*mut T, usize)> {
        let py = array.py();
        let array = of_type::<T>(name, array)?;
        let fields = fields(array);
        let refuse = |text: &str| Err(value_error(py, format!("{name} is {text}")));
        let data = fields.data.cast::<T>();
        if fields.flags & NPY_ARRAY_C_CONTIGUOUS == 0 {
            return refuse("not C-contiguous; give np.ascontiguousarray of it");
        }
        let len = array.len();
        if len > 0 && !data.is_aligned() {
            return refuse("not aligned for its dtype; give a copy of it");
        }
        if written && fields.flags & NPY_ARRAY_WRITEABLE == 0 {
            return refuse("read-only; give an array that may be written");
        }
        let start = data.addr();
        self.note(py, Span { name, start, end: start + len * size_of::<T>(), written })?;
        Ok((data, len))
    }

    fn note(&mut self, py: Python<'_>, new: Span) -> PyResult<()> {
        for old in &self.spans[..self.len] {
            if (new.written || old.written) && new.start < old.end && old.start < new.end {
                let (output, other) = if new.written { (new, *old) } else { (*old, new) };
                let (output, other) = (output.name, other.name);
                return Err(value_error(
                    py,
                    format!("{output} overlaps {other} in memory; give an array of its own"),
                ));
            }
        }
        let Some(free) = self.spans.get_mut(self.len) else {
            return Err(InternalError::new_err(format!("more than {MAX_ARRAYS} arrays in one call")));
        };
        *free = new;
        self.len += 1;
        Ok(())
    }
}

/// The shape of an array, copied: NumPy's own list may move while the interpreter lock is released.
pub(crate) fn shape(name: &'static str, array: Argument<'_, '_>) -> PyResult<Vec<usize>> {
    Ok(untyped(name, "", array)?.shape().to_vec())
}

/// Whether `array` is a NumPy array with elements of type `T` in native byte order.
pub(crate) fn holds<T: Element>(array: Argument<'_, '_>) -> bool {
    array.cast::<PyUntypedArray>().is_ok_and(has_type::<T>)
}

/// A new array of `len` zeros.
pub(crate) fn zeros<T: Element>(py: Python<'_>, len: usize) -> PyResult<Bound<'_, PyAny>> {
    let mut dims = [npy_intp::try_from(len)?];
    let dtype = T::get_dtype(py).into_dtype_ptr();
    // SAFETY: `dims` has the one entry announced; NumPy takes over the reference to the dtype. The result is a
    // new reference, or null with an exception set (the memory ran out).
    unsafe {
        let array = PY_ARRAY_API.PyArray_Zeros(py, 1, dims.as_mut_ptr(), dtype, 0);
        Bound::from_owned_ptr_or_err(py, array)
    }
}

/// A new array that holds `values`.
pub(crate) fn of_values<'py, T: Element>(py: Python<'py>, values: &[T]) -> PyResult<Bound<'py, PyAny>> {
    let array = zeros::<T>(py, values.len())?;
    Arrays::new().write("values", &array)?.copy_from_slice(values);
    Ok(array)
}

fn untyped<'a, 'py>(
    name: &'static str,
    dtype: &str,
    array: Argument<'a, 'py>,
) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    array.cast::<PyUntypedArray>().map_err(|_| {
        let class = array.get_type();
        let class = class.name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        let of = if dtype.is_empty() { "" } else { " of " };
        type_error(array.py(), format!("{name} is a {class}, expected a NumPy array{of}{dtype}"))
    })
}

fn of_type<'a, 'py, T: Element>(
    name: &'static str,
    array: Argument<'a, 'py>,
) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    let array = untyped(name, T::NAME, array)?;
    if has_type::<T>(array) {
        return Ok(array);
    }
    let (expected, native) = (T::NAME, array.dtype().byteorder() != swapped());
    let order = if native { "" } else { " in native byte order" };
    Err(type_error(
        array.py(),
        format!("{name} has dtype {}, expected {expected}{order}", array.dtype().str()?),
    ))
}

fn has_type<T: Element>(array: &Bound<'_, PyUntypedArray>) -> bool {
    let dtype = array.dtype();
    let builtin = dtype.num() < NPY_TYPES::NPY_USERDEF as i32; // others' types may claim any letter
    builtin && dtype.kind() == T::KIND && dtype.itemsize() == size_of::<T>() && dtype.byteorder() != swapped()
}

/// NumPy's sign for the byte order that this machine does not have.
const fn swapped() -> u8 {
    if cfg!(target_endian = "little") { b'>' } else { b'<' }
}

/// What NumPy stores about an array.
fn fields<'a>(array: &'a Bound<'_, PyUntypedArray>) -> &'a PyArrayObject_fields {
    // SAFETY: the object is an array (its type says so), so its fields stand behind this pointer for as long as
    // the reference lives; they change only through Python calls, of which there is none while the result lives.
    unsafe { &*_PyArray_GET_ITEM_DATA(array.as_array_ptr().cast_const()) }
}

/// # Safety
/// As for [`std::slice::from_raw_parts`]; an empty slice may start anywhere.
unsafe fn slice_of<'a, T>(data: *mut T, len: usize) -> &'a [T] {
    // SAFETY: handed on to the caller; what an empty array points at is not looked at.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } }
}

/// # Safety
/// As for [`std::slice::from_raw_parts_mut`]; an empty slice may start anywhere.
unsafe fn slice_of_mut<'a, T>(data: *mut T, len: usize) -> &'a mut [T] {
    // SAFETY: handed on to the caller; what an empty array points at is not looked at.
    if len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(data, len) } }
}
