//! Element types of weights, and the rounding from one to another.

use ::safetensors::tensor::Dtype as StoredDtype;
use half::{bf16, f16};

/// Element type of a weight in a safetensors file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// What rounding did to some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rounding {
    /// The first value that the type cannot hold: finite, but infinite after rounding.
    pub unfit: Option<f32>,
    /// Values that were not zero and are now.
    pub vanished: u64,
}

impl Rounding {
    /// Adds what happened to further values.
    pub fn add(&mut self, later: Rounding) {
        self.unfit = self.unfit.or(later.unfit);
        self.vanished += later.vanished;
    }
}

impl Dtype {
    /// Size of one element, in bytes.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The short name, such as `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// The name in `config.json`, such as `float32`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
        }
    }

    pub(super) fn stored(self) -> StoredDtype {
        match self {
            Dtype::F32 => StoredDtype::F32,
            Dtype::F16 => StoredDtype::F16,
            Dtype::Bf16 => StoredDtype::BF16,
        }
    }

    pub(super) fn of(stored: StoredDtype) -> Option<Self> {
        [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|dtype| dtype.stored() == stored)
    }

    /// Appends the values of little-endian `bytes`; exact. Bytes after the last whole element are ignored.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match self {
            Dtype::F32 => {
                values.extend(bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)))
            }
            Dtype::F16 => values.extend(pairs().map(|&chunk| f16::from_le_bytes(chunk).to_f32())),
            Dtype::Bf16 => values.extend(pairs().map(|&chunk| bf16::from_le_bytes(chunk).to_f32())),
        }
    }

    /// Appends `values` as little-endian bytes, rounded to the nearest, ties to even.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> Rounding {
        let mut rounding = Rounding::default();
        let mut half = |round: fn(f32) -> ([u8; 2], f32)| {
            for &value in values {
                let (encoded, rounded) = round(value);
                if rounded.is_infinite() && value.is_finite() {
                    rounding.unfit.get_or_insert(value);
                }
                rounding.vanished += u64::from(rounded == 0.0 && value != 0.0);
                bytes.extend_from_slice(&encoded);
            }
        };
        match self {
            Dtype::F32 => values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes())),
            Dtype::F16 => half(|value| {
                let rounded = f16::from_f32(value);
                (rounded.to_le_bytes(), rounded.to_f32())
            }),
            Dtype::Bf16 => half(|value| {
                let rounded = bf16::from_f32(value);
                (rounded.to_le_bytes(), rounded.to_f32())
            }),
        }
        rounding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_tells_what_is_lost() {
        let values = [1.0, 65_519.0, 65_520.0, -1e9, 1e-9, 0.0, f32::INFINITY, f32::NAN];
        let rounding = |dtype: Dtype| dtype.encode(&values, &mut Vec::new());
        assert_eq!(rounding(Dtype::F16), Rounding { unfit: Some(65_520.0), vanished: 1 });
        assert_eq!(rounding(Dtype::Bf16), Rounding::default());
        assert_eq!(rounding(Dtype::F32), Rounding::default());
        assert_eq!(Dtype::Bf16.encode(&[f32::MAX], &mut Vec::new()).unfit, Some(f32::MAX));
    }

    /// Every f16 and bf16, NaNs but for their payload included, survives the way through f32.
    #[test]
    fn halves_decode_exactly() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let (mut values, mut back) = (Vec::new(), Vec::new());
            dtype.decode(&all, &mut values);
            assert_eq!(dtype.encode(&values, &mut back), Rounding::default());
            for ((value, old), new) in values.iter().zip(all.chunks(2)).zip(back.chunks(2)) {
                assert!(value.is_nan() || old == new, "{old:?} became {new:?}");
            }
        }
    }
}
