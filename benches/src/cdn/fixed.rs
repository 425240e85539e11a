//! Logarithms and powers of two in integers, the same on every machine: the generator uses no floating point.

/// The binary logarithm of a number above 0, times 2³². 0 for 0.
pub const fn log2(value: u64) -> u64 {
    if value == 0 {
        return 0;
    }
    let whole = value.ilog2();
    // The number as 1.x with 63 binary digits; each squaring brings out one digit of the logarithm.
    let mut x = (value as u128) << (63 - whole);
    let mut fraction = 0;
    let mut digit = 0;
    while digit < 32 {
        x = (x * x) >> 63;
        fraction <<= 1;
        if x >= 1 << 64 {
            x >>= 1;
            fraction |= 1;
        }
        digit += 1;
    }
    ((whole as u64) << 32) | fraction
}

/// Two to the power of `exponent` / 2³², rounded down; the exponent is below 63 · 2³².
pub const fn exp2(exponent: u64) -> u64 {
    // 2^(1/2), 2^(1/4), … with 63 binary digits after the point, each the square root of the one before.
    const ROOTS: [u64; 32] = roots();
    let whole = exponent >> 32;
    let mut x = 1u128 << 63;
    let mut digit = 0;
    while digit < 32 {
        if (exponent >> (31 - digit)) & 1 == 1 {
            x = (x * ROOTS[digit] as u128) >> 63;
        }
        digit += 1;
    }
    (x >> (63 - whole)) as u64
}

const fn roots() -> [u64; 32] {
    let mut roots = [0; 32];
    let mut square = 1u128 << 127;
    let mut at = 0;
    while at < roots.len() {
        // The root of 2 · 2^126 has 63 digits after the point.
        let root = square.isqrt();
        roots[at] = root as u64;
        square = root << 63;
        at += 1;
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u64 = 1 << 32;

    #[test]
    fn powers_of_two_are_exact() {
        for power in 0..63 {
            assert_eq!(log2(1 << power), power * ONE);
            assert_eq!(exp2(power * ONE), 1 << power);
        }
    }

    #[test]
    fn others_are_close() {
        // log2 10 = 3.321928094887362
        assert_eq!(log2(10), 14_267_572_527);
        for value in [3, 7, 10, 1_000, 123_456_789, 1 << 40 | 12_345] {
            let back = exp2(log2(value));
            assert!(back.abs_diff(value) <= 1 + (value >> 30), "{value} {back}");
        }
    }
}
