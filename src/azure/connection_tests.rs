use proptest::prelude::*;

use super::*;

const SECRET: &str = "c2VjcmV0c2VjcmV0";

fn endpoint(text: &str) -> String {
    Connection::parse(text).unwrap().endpoint.to_string()
}

#[test]
fn endpoints_of_connection_strings() {
    let key = format!("AccountName=acc1;AccountKey={SECRET}");
    for (more, expected) in [
        ("", "https://acc1.blob.core.windows.net"),
        (";DefaultEndpointsProtocol=http", "http://acc1.blob.core.windows.net"),
        (";EndpointSuffix=core.chinacloudapi.cn;", "https://acc1.blob.core.chinacloudapi.cn"),
        (";EndpointSuffix=.Core.USGovCloudAPI.net", "https://acc1.blob.core.usgovcloudapi.net"),
        (";BlobEndpoint=http://127.0.0.1:10000/acc1/", "http://127.0.0.1:10000/acc1"),
        (";BlobEndpoint=https://locks.example.org;EndpointSuffix=x", "https://locks.example.org"),
        (" ;; QueueEndpoint=? ; BLOBENDPOINT = https://h ; Later=1", "https://h"),
        (";UseDevelopmentStorage=false", "https://acc1.blob.core.windows.net"),
        (";accountname=acc1", "https://acc1.blob.core.windows.net"),
    ] {
        let text = format!("{key}{more}");
        assert_eq!(endpoint(&text), expected);
        assert!(matches!(
            Connection::parse(&text).unwrap().credential,
            Credential::Key { account, .. } if account == "acc1"
        ));
    }
}

#[test]
fn the_emulator() {
    let emulator = Connection::parse("UseDevelopmentStorage=true").unwrap();
    assert!(matches!(&emulator.credential, Credential::Key { account, .. } if account == EMULATOR));
    assert_eq!(emulator.endpoint.to_string(), "http://127.0.0.1:10000/devstoreaccount1");
    assert_eq!(
        endpoint("usedevelopmentstorage=TRUE;DevelopmentStorageProxyUri=http://azurite"),
        "http://azurite:10000/devstoreaccount1"
    );
    // Account, key and endpoint spelt out, as most tools print it.
    let long = format!(
        "DefaultEndpointsProtocol=http;AccountName={EMULATOR};AccountKey={EMULATOR_KEY};\
         BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;\
         QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
    );
    assert_eq!(Connection::parse(&long).unwrap().endpoint, emulator.endpoint);
}

#[test]
fn a_sas() {
    let sas = "sv=2018-11-09&sp=cw&sig=a%2Bb%3D";
    for text in [
        format!("BlobEndpoint=https://acc1.blob.core.windows.net/;SharedAccessSignature=?{sas}"),
        format!("AccountName=acc1;AccountKey={SECRET};SharedAccessSignature={sas}"),
    ] {
        let Connection { credential, endpoint } = Connection::parse(&text).unwrap();
        let Credential::Sas(token) = credential else { panic!("a SAS counts more than a key") };
        assert_eq!(token.query(), sas);
        assert_eq!(endpoint.to_string(), "https://acc1.blob.core.windows.net");
    }
    for token in
        ["", "?", "sv=1", "sv=1&sig=", "sig=a b", "sig=a#b", "https://h/?sv=1&sig=x", "xsig=1", "sig=ü"]
    {
        assert_eq!(Sas::new(token).unwrap_err().kind(), ErrorKind::Config, "{token}");
    }
}

#[test]
fn wrong_connection_strings() {
    for (text, named) in [
        ("", "AccountKey"),
        ("c2VjcmV0", "part 1"),
        ("AccountName=acc1;c2VjcmV0", "part 2"),
        ("AccountName=acc1", "AccountKey"),
        ("AccountKey=c2VjcmV0", "AccountName"),
        ("AccountName=acc1;AccountKey=c2VjcmV0#", "account key"),
        ("AccountName=acc1;AccountKey=", "`AccountKey`"),
        ("AccountName=acc1;AccountKey=c2VjcmV0;AccountKey=c2VjcmV1", "twice"),
        ("AccountName=c2VjcmV0/;AccountKey=c2VjcmV0", "account name"),
        ("AccountName=acc1-secondary;AccountKey=c2VjcmV0", "account name"),
        ("SharedAccessSignature=sig=c2VjcmV0", "BlobEndpoint"),
        ("AccountName=acc1;SharedAccessSignature=c2VjcmV0", "SAS"),
        ("AccountName=acc1;AccountKey=c2VjcmV0;DefaultEndpointsProtocol=c2VjcmV0", "Protocol"),
        ("AccountName=acc1;AccountKey=c2VjcmV0;EndpointSuffix=c2VjcmV0/x", "suffix"),
        ("AccountName=acc1;AccountKey=c2VjcmV0;BlobEndpoint=https://h/?sig=c2VjcmV0", "BlobEndpoint"),
        ("UseDevelopmentStorage=c2VjcmV0", "UseDevelopmentStorage"),
        ("UseDevelopmentStorage=true;AccountName=c2VjcmV0", "leave those out"),
        ("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=c2VjcmV0", "ProxyUri"),
    ] {
        let error = Connection::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = error.to_string();
        assert!(shown.contains(named) && !shown.contains("c2Vj"), "{text}: {shown}");
    }
}

#[test]
fn endpoints() {
    for (url, shown) in [
        ("https://acc1.blob.core.windows.net", "https://acc1.blob.core.windows.net"),
        ("HTTPS://Acc1.Blob.Core.Windows.Net/", "https://acc1.blob.core.windows.net"),
        ("http://127.0.0.1:10000/devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://localhost:1/a/b//", "http://localhost:1/a/b"),
        ("http://acc1.blob.localhost:10000", "http://acc1.blob.localhost:10000"),
        ("http://localhost.", "http://localhost."),
        ("http://[::1]:10000/acc1", "http://[::1]:10000/acc1"),
        ("http://[::FFFF:127.0.0.1]", "http://[::ffff:127.0.0.1]"),
        ("http://[fd00::1]", "http://[fd00::1]"),
        ("https://localhost.example.org", "https://localhost.example.org"),
        ("https://127.0.0.1.example.org", "https://127.0.0.1.example.org"),
        (" https://acc1.z12.blob.storage.azure.net ", "https://acc1.z12.blob.storage.azure.net"),
        ("https://my-secondary.example.org:444", "https://my-secondary.example.org:444"),
    ] {
        let endpoint = Endpoint::parse(url).unwrap();
        assert_eq!(endpoint.to_string(), shown);
    }
}

#[test]
fn clouds_and_what_may_be_read_on_the_way() {
    for (url, cloud, open) in [
        ("https://acc1.blob.core.windows.net", Cloud::Public, false),
        ("https://acc1.blob.core.usgovcloudapi.net", Cloud::Government, false),
        ("https://acc1.Blob.core.usgovcloudapi.net.:443/", Cloud::Government, false),
        ("https://acc1.blob.core.chinacloudapi.cn", Cloud::China, false),
        ("https://core.chinacloudapi.cn.example.org", Cloud::Public, false),
        ("https://xcore.usgovcloudapi.net", Cloud::Public, false),
        ("https://locks.example.org", Cloud::Public, false),
        ("http://locks.example.org", Cloud::Public, true),
        ("http://acc1.blob.core.usgovcloudapi.net", Cloud::Government, true),
        ("http://127.0.0.1.example.org", Cloud::Public, true),
        ("http://[fe80::1]", Cloud::Public, true),
        ("http://169.254.169.254", Cloud::Public, true),
        ("http://127.0.0.1:10000/devstoreaccount1", Cloud::Public, false),
        ("http://devstoreaccount1.blob.localhost:10000", Cloud::Public, false),
        ("http://[::1]:10000/devstoreaccount1", Cloud::Public, false),
    ] {
        let endpoint = Endpoint::parse(url).unwrap();
        assert_eq!((endpoint.cloud(), endpoint.is_open()), (cloud, open), "{url}");
    }
    for (suffix, cloud) in [
        ("core.windows.net", Cloud::Public),
        ("core.usgovcloudapi.net", Cloud::Government),
        ("core.chinacloudapi.cn", Cloud::China),
    ] {
        assert_eq!(Endpoint::of_account(true, "acc1", suffix).unwrap().cloud(), cloud);
    }
}

#[test]
fn wrong_endpoints() {
    for (url, named) in [
        ("", "https://"),
        ("c2VjcmV0", "https://"),
        ("acc1.blob.core.windows.net", "https://"),
        ("ftp://h", "https://"),
        ("https:/h", "https://"),
        ("https://", "host"),
        ("https:///c2VjcmV0", "host"),
        ("https://c2Vj:c2VjcmV0@h/", "user"),
        ("https://c2VjcmV0@h:1", "user"),
        ("https://h?sig=c2VjcmV0", "SAS"),
        ("https://h/#c2VjcmV0", "`#`"),
        ("https://h:", "port"),
        ("https://h:0", "port"),
        ("https://h:+1", "port"),
        ("https://h:65536", "port"),
        ("https://h:c2VjcmV0", "port"),
        ("https://::1", "host"),
        ("https://[::1", "host"),
        ("https://[c2VjcmV0]", "IPv6"),
        ("https://[fe80::1%25eth0]", "IPv6"),
        ("https://a b", "host"),
        ("https://.h", "host"),
        ("https://h..x", "host"),
        ("https://münchen.example", "xn--"),
        ("https://h\\c2VjcmV0", "host"),
        ("https://h/a b", "path"),
        ("https://h/a//c2VjcmV0", "path"),
        ("https://h//c2VjcmV0", "path"),
        ("https://h/../x", "path"),
        ("https://h/%2e%2e/x", "path"),
        ("https://acc1-secondary.blob.core.windows.net", "primary"),
    ] {
        let error = Endpoint::parse(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = error.to_string();
        assert!(shown.contains(named) && !shown.contains("c2Vj"), "{url}: {shown}");
    }
}

#[test]
fn paths_and_urls() {
    let plain = Endpoint::of_account(true, "acc1", PUBLIC_CLOUD).unwrap();
    assert_eq!(plain.container_path("locks"), "/locks");
    let path = plain.blob_path("locks", "a b/é+z~1%");
    assert_eq!(path, "/locks/a%20b/%C3%A9%2Bz~1%25");
    assert_eq!(plain.url(&path, ""), format!("https://acc1.blob.core.windows.net{path}"));
    let emulator = Endpoint::parse("http://[::1]:10000/devstoreaccount1").unwrap();
    let path = emulator.blob_path("locks", "x");
    assert_eq!(path, "/devstoreaccount1/locks/x");
    assert_eq!(emulator.url(&path, "comp=lease"), "http://[::1]:10000/devstoreaccount1/locks/x?comp=lease");
    assert_eq!(emulator.url("/", ""), "http://[::1]:10000/");
}

#[test]
fn nothing_shows_a_secret() {
    let sas = Connection::parse("AccountName=acc1;SharedAccessSignature=sv=1&sig=hunter2").unwrap();
    let key = Connection::parse("AccountName=acc1;AccountKey=aHVudGVyMg==").unwrap();
    let shown = format!("{sas:?} {key:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("aHVu"), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_showing_it(
        text in "\\PC{0,9}|((AccountKey|BlobEndpoint|SharedAccessSignature)=\\PC{0,9}SECRET;){0,4}",
    ) {
        if let Err(error) = Connection::parse(&text) {
            prop_assert_eq!(error.kind(), ErrorKind::Config);
            prop_assert!(!error.to_string().contains("SECRET"));
        }
        for start in ["", "https://", "http://h/", "http://h:"] {
            let url = format!("{start}{text}");
            if let Ok(endpoint) = Endpoint::parse(&url) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()).unwrap(), endpoint);
            }
        }
    }

    #[test]
    fn order_and_case_of_parts_change_nothing(by in 0_usize..4, upper in any::<bool>()) {
        let mut parts =
            ["AccountName=acc1", "AccountKey=YWJj", "EndpointSuffix=x.y", "DefaultEndpointsProtocol=http"]
                .map(|part| part.split_once('=').unwrap());
        parts.rotate_left(by);
        let part = |(name, value): (&str, &str)| {
            let name = if upper { name.to_ascii_uppercase() } else { name.to_ascii_lowercase() };
            format!("{name}={value}")
        };
        prop_assert_eq!(endpoint(&parts.map(part).join(";")), "http://acc1.blob.x.y");
    }

    #[test]
    fn no_blob_name_leaves_its_path(name in "\\PC{1,9}|[ -~]{1,9}") {
        let endpoint = Endpoint::parse("http://h/acc1").unwrap();
        let path = endpoint.blob_path("locks", &name);
        prop_assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)));
        prop_assert_eq!(path.matches('/').count(), 3 + name.matches('/').count());
    }
}
