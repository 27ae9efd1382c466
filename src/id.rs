//! Random ids: one for each acquisition, so that a repeated request is known as the same.

/// A version 4 UUID (RFC 9562, section 5.4) in lower case.
///
/// # Panics
/// When the machine has no source of random bytes, since nothing safe can be done then.
pub(crate) fn uuid() -> String {
    let mut b = [0_u8; 16];
    fill(&mut b);
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let n = u128::from_be_bytes(b);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        n >> 80 & 0xffff,
        n >> 64 & 0xffff,
        n >> 48 & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn fill(bytes: &mut [u8; 16]) {
    use rustix::rand::{GetRandomFlags, getrandom};
    // The kernel gives up to 256 bytes whole, and only a signal before the first seeding interrupts it.
    while getrandom(&mut bytes[..], GetRandomFlags::empty()) != Ok(16) {}
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn fill(bytes: &mut [u8; 16]) {
    getrandom::fill(bytes).expect("the machine has random bytes");
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_have_the_form_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| super::uuid()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let parts: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
            assert_eq!(&id[14..15], "4");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
        }
    }
}
