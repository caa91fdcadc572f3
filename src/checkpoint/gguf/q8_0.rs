//! Quantisation to 8 bits in blocks of 32: ggml's `q8_0`.
//!
//! d = max |x| / 127 in f32, stored as f16; q = x / d rounded half away from zero, where d is taken before it is rounded
//! to f16 (quantize_row_q8_0_ref of ggml-quants.c).

use half::f16;

use crate::checkpoint::Rounding;

/// Elements of a block.
pub(super) const BLOCK: usize = 32;

/// Bytes of a block: the scale, and one for each element.
pub(super) const BLOCK_BYTES: usize = 2 + BLOCK;

/// Appends blocks; the length of `values` must be a multiple of [`BLOCK`].
///
/// What is not finite, or needs a scale that is not finite in f16, is [`Rounding::unfit`]. Small values become 0 by
/// design and are not counted.
pub(super) fn encode(values: &[f32], bytes: &mut Vec<u8>) -> Rounding {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "{} values are not whole blocks", values.len());
    let mut rounding = Rounding::default();
    for block in blocks {
        let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let stored = f16::from_f32(scale);
        let unfit = |x: &f32| !x.is_finite() || (stored.is_infinite() && x.abs() == largest);
        rounding.unfit = rounding.unfit.or_else(|| block.iter().copied().find(unfit));
        bytes.extend(stored.to_le_bytes());
        // `as` saturates, which only what is unfit needs.
        bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
    rounding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_scaled_and_rounded_half_away_from_zero() {
        let mut values = vec![0.0; 96];
        // Scale 1: the values are the quants, and .5 is exact.
        values[..6].copy_from_slice(&[127.0, 2.5, -2.5, 3.49, -0.5, -127.0]);
        values[32] = -0.25;
        let mut bytes = Vec::new();
        assert_eq!(encode(&values, &mut bytes), Rounding::default());
        assert_eq!(bytes.len(), 3 * BLOCK_BYTES);
        assert_eq!(bytes[..2], f16::ONE.to_le_bytes());
        assert_eq!(bytes[2..8].iter().map(|&q| q as i8).collect::<Vec<_>>(), [127, 3, -3, 3, -1, -127]);
        assert_eq!(bytes[34..36], f16::from_f32(0.25 / 127.0).to_le_bytes());
        assert_eq!(bytes[36] as i8, -127);
        assert!(bytes[68..].iter().all(|&byte| byte == 0), "a block of zeros");
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        let values: Vec<f32> = (0..320).map(|i| ((i * 7919) % 1009) as f32 * 1e-3 - 0.5).collect();
        let mut bytes = Vec::new();
        encode(&values, &mut bytes);
        for (block, stored) in values.chunks(BLOCK).zip(bytes.chunks(BLOCK_BYTES)) {
            let scale = f16::from_le_bytes([stored[0], stored[1]]).to_f32();
            for (x, &q) in block.iter().zip(&stored[2..]) {
                // Half a step, and the rounding of the scale: 2^-11 of up to 127 steps.
                assert!((x - scale * (q as i8) as f32).abs() <= scale * (0.5 + 127.0 / 2048.0), "{x}");
            }
        }
    }

    #[test]
    fn what_has_no_scale_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e7, -3e38] {
            let mut values = vec![1.0; 32];
            values[9] = bad;
            let unfit = encode(&values, &mut Vec::new()).unfit.unwrap();
            assert_eq!(unfit.to_bits(), bad.to_bits());
        }
        assert_eq!(encode(&[65504.0 * 127.0; 32], &mut Vec::new()).unfit, None);
    }
}
