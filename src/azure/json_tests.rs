use proptest::prelude::*;

use super::*;

#[test]
fn answers_of_identity_services() {
    let imds = br#"{"access_token":"eyJ0.e30.sig","client_id":"d4","expires_in":"86399",
        "expires_on":"1700000000","ext_expires_in":"86399","not_before":"1699900000",
        "resource":"https://storage.azure.com/","token_type":"Bearer"}"#;
    let imds = Object::read(imds).unwrap();
    assert_eq!(imds.text("access_token"), Some("eyJ0.e30.sig"));
    assert_eq!((imds.number("expires_in"), imds.number("expires_on")), (Some(86_399), Some(1_700_000_000)));
    let entra = br#" {"token_type":"Bearer","expires_in":3599,"access_token":"a.b.c"} "#;
    let entra = Object::read(entra).unwrap();
    assert_eq!((entra.text("access_token"), entra.number("expires_in")), (Some("a.b.c"), Some(3599)));
    assert_eq!((entra.text("expires_in"), entra.number("access_token")), (None, None));
    let refusal = br#"{"error":"invalid_client","error_description":"AADSTS7000215: No.\r\nTrace ID: 1",
        "error_codes":[7000215],"inner":{"a":[{}, [], null, true]},"last":false}"#;
    let refusal = Object::read(refusal).unwrap();
    assert_eq!(refusal.text("error_description"), Some("AADSTS7000215: No.\r\nTrace ID: 1"));
    assert!(refusal.text("error_codes").is_none() && refusal.text("inner").is_none());
}

#[test]
fn strings_and_numbers() {
    let read = |value: &str| Object::read(format!("{{\"x\":{value}}}").as_bytes());
    for (value, text) in [
        (r#""""#, ""),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\x08\x0c\n\r\t"),
        (r#""\u00e9\u20AC\ud83d\ude00""#, "é€😀"),
        ("\"é😀\u{7f}\"", "é😀\u{7f}"),
    ] {
        assert_eq!(read(value).expect(value).text("x"), Some(text), "{value}");
    }
    for (value, number) in [
        ("0", Some(0)),
        ("\"007\"", Some(7)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("\"-1\"", None),
        ("\"+1\"", None),
        ("\"\"", None),
        ("1.5e+3", None),
        ("true", None),
    ] {
        assert_eq!(read(value).expect(value).number("x"), number, "{value}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    let deep = |levels| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(Object::read(deep(DEEPEST).as_bytes()).is_some());
    for wrong in [
        "",
        "[]",
        "1",
        "\"x\"",
        "{",
        "{}}",
        "{} x",
        "{,}",
        "{\"x\"}",
        "{\"x\":}",
        "{\"x\":1,}",
        "{\"x\":1 \"y\":2}",
        "{\"x\":1,\"x\":2}",
        "{\"x\":1,\"\\u0078\":2}",
        "{x:1}",
        "{'x':1}",
        "{\"x\":01}",
        "{\"x\":-}",
        "{\"x\":+1}",
        "{\"x\":.5}",
        "{\"x\":1.}",
        "{\"x\":1e}",
        "{\"x\":NaN}",
        "{\"x\":nul}",
        "{\"x\":nullx}",
        "{\"x\":\"a\nb\"}",
        "{\"x\":\"\\x\"}",
        "{\"x\":\"\\u12g4\"}",
        "{\"x\":\"\\u+123\"}",
        "{\"x\":\"\\ud83d\"}",
        "{\"x\":\"\\ud83dx\"}",
        "{\"x\":\"\\ud83d\\u0041\"}",
        "{\"x\":\"\\ude00\"}",
        "{\"x\":[1,]}",
        "{\"x\":[1}",
        "\u{feff}{}",
        "<html></html>",
        &deep(DEEPEST + 1),
        &deep(100_000),
    ] {
        assert!(Object::read(wrong.as_bytes()).is_none(), "{:?}", wrong.get(..60).unwrap_or(wrong));
    }
    assert!(Object::read(b"{\"x\":\"\xff\"}").is_none());
}

/// Writes a string in one of its many forms.
fn written(text: &str, escaped: bool) -> String {
    let plain = |c: char| !escaped && !matches!(c, '"' | '\\' | '\0'..='\x1f');
    let unit = |unit: &u16| format!("\\u{unit:04x}");
    let sign = |c: char| {
        if plain(c) { c.to_string() } else { c.encode_utf16(&mut [0; 2]).iter().map(unit).collect() }
    };
    format!("\"{}\"", text.chars().map(sign).collect::<String>())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        members in proptest::collection::btree_map("\\PC{0,6}|[ -~]{1,6}", ("(?s).{0,9}", any::<u64>()), 0..6),
        escaped in any::<bool>(),
        space in "[ \t\r\n]{0,3}",
        other in prop::sample::select(vec!["null", "[1,{\"a\":\"b\"},[]]", "{\"access_token\":\"inner\"}", "-0.5e-9"]),
    ) {
        let written = |kind: &str, name: &str| written(&format!("{kind}{name}"), escaped);
        let member = |(name, (value, number)): (&String, &(String, u64))| {
            let (t, n, o, value) =
                (written("t", name), written("n", name), written("o", name), written("", value));
            format!("{space}{t}{space}:{space}{value}{space},{n}:{number},{o}:{space}{other}")
        };
        let all: Vec<String> = members.iter().map(member).collect();
        let text = format!("{space}{{{}{space}}}{space}", all.join(","));
        let object = Object::read(text.as_bytes());
        prop_assert!(object.is_some(), "{text}");
        let object = object.unwrap();
        for (name, (value, number)) in &members {
            prop_assert_eq!(object.text(&format!("t{name}")), Some(&**value));
            prop_assert_eq!(object.number(&format!("n{name}")), Some(*number));
            let other = format!("o{name}");
            prop_assert_eq!((object.text(&other), object.number(&other)), (None, None));
        }
        // Cut off anywhere, it is none.
        let body = text.trim_end();
        for end in (0..body.len()).filter(|&end| body.is_char_boundary(end)) {
            prop_assert!(Object::read(&body.as_bytes()[..end]).is_none());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), text in "[{}\\[\\]\",:\\\\u0-9a-f \n.eE+-]{0,40}") {
        let _ = Object::read(&bytes);
        let _ = Object::read(text.as_bytes());
        let _ = Object::read(format!("{{\"a\":{text}}}").as_bytes());
        let _ = Object::read(format!("{{\"a\":\"{text}\"}}").as_bytes());
    }
}
