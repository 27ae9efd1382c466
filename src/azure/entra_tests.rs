use super::*;

#[test]
fn applications_that_cannot_be() {
    let new = |tenant: &str, id: &str, secret: &str| {
        Application::new(tenant, id, Proof::Secret(secret.to_owned())).map(drop)
    };
    new("72f988bf-86f1-41af-91ab-2d7cd011db47", "d4c9e3f2-0000-4000-8000-000000000000", "hunter2").unwrap();
    new("contoso.onmicrosoft.com", "d4c9e3f2", "x").unwrap();
    for (tenant, id, secret, named) in [
        ("", "d4", "hunter2", "tenant"),
        ("../x", "d4", "hunter2", "tenant"),
        ("a b", "d4", "hunter2", "tenant"),
        ("t", "", "hunter2", "client id"),
        ("t", "hunter2~", "x", "client id"),
        ("t", "d4", "", "client secret"),
    ] {
        let error = new(tenant, id, secret).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(named) && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn each_cloud_has_its_service_unless_one_is_named() {
    let new = |authority: Option<&str>| {
        let application = Application::new("contoso.cn", "d4", Proof::Secret("x".to_owned())).unwrap();
        Application { authority: authority.map(str::to_owned), ..application }
    };
    for (cloud, host) in [
        (Cloud::Public, "login.microsoftonline.com"),
        (Cloud::Government, "login.microsoftonline.us"),
        (Cloud::China, "login.chinacloudapi.cn"),
    ] {
        assert_eq!(new(None).url(cloud), format!("https://{host}/contoso.cn/oauth2/v2.0/token"));
        let named = new(Some("https://login.example"));
        assert_eq!(named.url(cloud), "https://login.example/contoso.cn/oauth2/v2.0/token");
    }
}

#[test]
fn a_federated_token_that_cannot_be_read() {
    let path = PathBuf::from("/no/such/file");
    let why = Application::assertion(&path).unwrap_err();
    assert_eq!(why.kind, ErrorKind::Config);
    assert!(why.why.contains("/no/such/file"), "{why:?}");
}
