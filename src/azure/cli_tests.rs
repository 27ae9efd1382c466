use super::*;

#[test]
fn why_it_gave_nothing() {
    let failed = Command::new("sh").args(["-c", "exit 1"]).status().unwrap();
    for (complaint, kind, shown) in [
        ("", ErrorKind::Unavailable, "`az` failed: exit status: 1"),
        ("\n\nWARNING: old\nERROR: Please run 'az login' to setup account.\n", ErrorKind::Denied, "az login"),
        (
            "ERROR: AADSTS70043: The refresh token has expired\r\nTrace ID: 1",
            ErrorKind::Denied,
            "AADSTS70043",
        ),
        ("ERROR: HTTPSConnectionPool: Max retries exceeded", ErrorKind::Unavailable, "Max retries"),
        ("'az' is not recognized as an internal or external command,\r\n", ErrorKind::Config, "recognized"),
        ("\u{1b}[31mERROR: red\u{1b}[0m", ErrorKind::Unavailable, "`az`: [31mERROR: red"),
    ] {
        let why = refusal(failed, complaint);
        assert_eq!(why.kind, kind, "{complaint}");
        assert!(why.why.contains(shown) && !why.why.contains('\n'), "{why:?}");
    }
    let long = refusal(failed, &"x".repeat(10_000));
    assert!(long.why.len() < 400);
}
