use std::time::SystemTime;

use super::*;

const NOW: u64 = 1_700_000_000;

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn how_long_a_token_lives() {
    let life = |date_sent: bool, rest: &str| {
        let date = date(NOW);
        let headers: &[(&'static str, &str)] = if date_sent { &[("date", &date)] } else { &[] };
        let answer = Response::of(200, headers, &format!("{{\"access_token\":\"a.b.c\"{rest}}}"));
        understand(&answer, "").map(|fetched| fetched.life.as_secs())
    };
    // No clock of ours is in any of these: `NOW` is years ago.
    for (date_sent, rest, seconds) in [
        (false, ",\"expires_in\":3599", 3599),
        (false, ",\"expires_in\":\"3599\",\"expires_on\":\"1700003599\"", 3599),
        (true, ",\"expires_on\":\"1700003599\"", 3599),
        (true, ",\"expires_on\":1700000010", 10),
        (true, ",\"expires_in\":\"86400\",\"expires_on\":\"1700000060\"", 60),
        (true, ",\"expires_in\":60,\"expires_on\":1700086400", 60),
        (true, ",\"expires_on\":1600000000", 0),
    ] {
        assert_eq!(life(date_sent, rest).unwrap(), seconds, "{rest}");
    }
    assert_eq!(life(false, ",\"expires_on\":\"1700003599\"").unwrap(), 0, "it ended years ago");
    for rest in ["", ",\"expires_in\":\"soon\"", ",\"expires_on\":\"11/16/2023 00:00:00\""] {
        assert_eq!(life(true, rest).unwrap_err().kind, ErrorKind::Unavailable, "{rest}");
    }
}

#[test]
fn what_a_refusal_means() {
    let aadsts = |error: &str| {
        let said = "AADSTS7000215: Invalid client secret hunter2 provided.\\r\\nTrace ID: 1";
        format!("{{\"error\":\"{error}\",\"error_description\":\"{said}\",\"error_codes\":[7000215]}}")
    };
    let app = "{\"statusCode\":400,\"message\":\"No User Assigned or Delegated Managed Identity found\"}";
    for (status, body, kind, shown) in [
        (401, &*aadsts("invalid_client"), ErrorKind::Denied, "status 401 invalid_client: AADSTS7000215"),
        (400, &aadsts("unauthorized_client"), ErrorKind::Denied, "unauthorized_client"),
        (400, &aadsts("something_new"), ErrorKind::Denied, "something_new"),
        (400, &aadsts("invalid_request"), ErrorKind::Config, "invalid_request: AADSTS"),
        (400, &aadsts("invalid_scope"), ErrorKind::Config, "invalid_scope"),
        (503, &aadsts("temporarily_unavailable"), ErrorKind::Unavailable, "status 503"),
        (400, &aadsts("temporarily_unavailable"), ErrorKind::Unavailable, "status 400"),
        (
            401,
            "{\"error\":\"invalid_client\",\"message\":\"hun\\u0007ter2\\u202e.\"}",
            ErrorKind::Denied,
            "client: ..",
        ),
        (429, "", ErrorKind::Unavailable, "status 429"),
        (500, "oops", ErrorKind::Unavailable, "status 500"),
        (400, app, ErrorKind::Denied, "status 400: No User Assigned"),
        (400, "<html>Please sign in</html>", ErrorKind::Unavailable, "proxy"),
        (200, "<html>Please sign in</html>", ErrorKind::Unavailable, "proxy"),
        (200, "{\"access_token\":\"hunter2\"", ErrorKind::Unavailable, "status 200"),
        (302, "", ErrorKind::Unavailable, "status 302"),
    ] {
        let why = understand(&Response::of(status, &[], body), "hunter2").err().expect(body);
        assert_eq!(why.kind, kind, "{status} {body}: {why:?}");
        assert!(why.why.contains(shown) && !why.why.contains("hunter2"), "{body}: {why:?}");
        assert!(!why.why.contains("Trace"), "{why:?}");
    }
    let busy = Response::of(429, &[("retry-after", "17")], "");
    assert_eq!(understand(&busy, "").err().unwrap().retry_after, Some(Duration::from_secs(17)));
}

#[test]
fn forms() {
    let mut form = Form::default();
    form.add("a", "x y~.-_");
    form.add("b", "&=+%é/");
    assert_eq!(form.0, "a=x%20y~.-_&b=%26%3D%2B%25%C3%A9%2F");
}
