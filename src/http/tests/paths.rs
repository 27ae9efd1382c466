//! What is between a request and its connection: gate, names, pool, proxy.

use super::*;

#[test]
fn a_look_up_that_hangs_is_bounded_and_one_at_a_time() {
    let (count, counted) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::always(OK);
    let client = named(move |_| {
        count.send(()).unwrap();
        let _ = gone.lock().unwrap().recv();
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    });
    let url = format!("http://store.test:{}/a?sig=SECRET", server.port);
    let watch = Stopwatch::start(&Clock::system());
    for _ in 0..3 {
        fails(client.send(&ask("GET", &url), SHORT), true, "no address from the name server within 200 ms");
    }
    assert!((3 * SHORT..3 * SHORT + SLACK).contains(&watch.elapsed()), "{:?}", watch.elapsed());
    drop(go);
    get(&client, &url).unwrap();
    assert_eq!(counted.try_iter().count(), 1);
}

#[test]
fn names_are_renewed_beside_the_requests_and_outlive_their_server() {
    let clock = Clock::manual();
    let address = |last| vec![IpAddr::from([10, 0, 0, last])];
    let (answer, answers) = mpsc::channel::<io::Result<Vec<IpAddr>>>();
    let (asked, questions) = mpsc::channel();
    let answers = Mutex::new(answers);
    let names = Names::new(&clock, move |_| {
        let answer = answers.lock().unwrap().recv().unwrap();
        asked.send(()).unwrap();
        answer
    });
    let find = || names.find("a.test", LONG);
    let settle = || {
        questions.recv_timeout(LONG).expect("a look-up");
        names.settle(LONG);
    };
    answer.send(Ok(address(1))).unwrap();
    assert_eq!(find().unwrap(), address(1));
    settle();
    clock.advance(Duration::from_secs(29));
    assert_eq!(find().unwrap(), address(1));
    // Old, and the server hangs, then fails: good for as long as the store answers there.
    clock.advance(Duration::from_secs(2));
    assert_eq!(find().unwrap(), address(1));
    answer.send(Err(io::Error::other("down"))).unwrap();
    settle();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(100));
        names.prove("a.test");
        assert_eq!(find().unwrap(), address(1));
        answer.send(Err(io::Error::other("down"))).unwrap();
        settle();
    }
    clock.advance(Duration::from_secs(300));
    answer.send(Err(io::Error::other("still down"))).unwrap();
    let Err(names::Unknown::Failed(why)) = find() else { panic!("nobody vouches for it") };
    assert_eq!(why.to_string(), "still down");
    answer.send(Ok(address(2))).unwrap();
    assert_eq!(find().unwrap(), address(2));
    answer.send(Ok(vec![])).unwrap();
    assert!(names.find("b.test", LONG).is_err());
}

#[test]
fn after_a_timeout_no_connection_from_before_is_used() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::start(move |stream, number, text| {
        if text.starts_with("POST") {
            return hang(stream);
        }
        if text.starts_with("PATCH") {
            let _ = gone.lock().unwrap().recv_timeout(LONG);
        }
        number < 9 && stream.write_all(OK.as_bytes()).is_ok()
    });
    let (client, url) = (client(), server.url());
    std::thread::scope(|scope| {
        // Two connections at once, idle afterwards.
        let (client, url) = (&client, &url);
        let first = scope.spawn(move || client.send(&ask("PATCH", url), LONG).unwrap());
        assert_eq!(server.next().0, 0);
        get(client, url).unwrap();
        assert_eq!(server.next().0, 1);
        go.send(()).unwrap();
        first.join().unwrap();
    });
    get(&client, &url).unwrap();
    assert!(server.next().0 < 2, "pooled");
    fails(client.send(&ask("POST", &url), SHORT), false, "no answer");
    assert!(server.next().0 < 2, "pooled");
    for _ in 0..2 {
        get(&client, &url).unwrap();
        assert_eq!(server.next().0, 2, "a new one, and that one again");
    }
}

#[test]
fn eight_are_in_flight_and_releases_pass_them() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let count = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let most = count.clone();
    let server = Server::start(move |stream, _, text| {
        if text.starts_with("PUT") {
            let now = count[0].fetch_add(1, Ordering::SeqCst) + 1;
            count[1].fetch_max(now, Ordering::SeqCst);
            let _ = gone.lock().unwrap().recv();
            count[0].fetch_sub(1, Ordering::SeqCst);
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let (client, url) = (client(), server.url());
    let connections = std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| client.send(&ask("PUT", &url), LONG).unwrap());
        }
        let mut connections: Vec<_> = (0..8).map(|_| server.next().0).collect();
        fails(client.send(&ask("GET", &url), SHORT), true, "GET not sent within 200 ms: too many");
        // All eight hang, twelve wait.
        client.send(&Request { lane: Lane::Release, ..ask("GET", &url) }, LONG).unwrap();
        assert!(server.next().1.starts_with("GET"));
        drop(go);
        connections.extend((0..12).map(|_| server.next().0));
        connections
    });
    assert_eq!(most[1].load(Ordering::SeqCst), 8);
    assert!(connections.iter().max() <= Some(&8), "nine in all: {connections:?}");
}

#[test]
fn releases_take_what_nobody_else_wants_and_lose_no_wake_up() {
    let gate = Gate::default();
    let now = Limit::after(&Clock::system(), Duration::ZERO);
    let enter = |lane, n| (0..n).filter_map(|_| gate.enter(lane, &now)).collect::<Vec<_>>();
    let held = enter(Lane::Release, 20);
    assert_eq!((held.len(), enter(Lane::Ordinary, 1).len()), (12, 0));
    drop(held);
    let held = enter(Lane::Ordinary, 20);
    assert_eq!((held.len(), enter(Lane::Release, 20).len()), (8, 4));
    drop(held);
    // More than the slots, both lanes, many rounds: each gets in.
    std::thread::scope(|scope| {
        for n in 0..40 {
            let gate = &gate;
            scope.spawn(move || {
                let lane: fn(usize) -> Lane = |n| if n % 3 == 0 { Lane::Release } else { Lane::Ordinary };
                for round in 0..50 {
                    let limit = Limit::after(&Clock::system(), LONG);
                    assert!(gate.enter(lane(n + round), &limit).is_some());
                }
            });
        }
    });
    assert_eq!(enter(Lane::Release, 20).len(), 12);
}

#[test]
fn a_proxy_is_for_others_than_this_machine() {
    let (proxy, server) = (Server::always("HTTP/1.1 200 OK\r\n\r\n"), Server::always(OK));
    let settings = Settings { allow_http: true, ..Settings::default() };
    let address = Proxy::new(&format!("http://127.0.0.1:{}", proxy.port)).unwrap();
    let unasked = Names::new(&Clock::system(), |_| Err(io::Error::other("the proxy looks up")));
    let client = Client::with(&settings, unasked, Some(address));
    get(&client, &server.url()).unwrap();
    assert!(server.next().1.starts_with("GET"));
    let tell = "http://store.test/a?sig=SECRET";
    let _ = client.send(&ask("GET", tell), SHORT);
    assert!(proxy.next().1.starts_with("CONNECT store.test:80 HTTP/1.1\r\n"));
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.1.1]"] {
        assert!(names::is_link_local(host));
    }
    // What serves identities is asked directly, on a private address too; nobody answers on this one.
    let proxy = Server::always("HTTP/1.1 200 OK\r\n\r\n");
    let address = Proxy::new(&format!("http://127.0.0.1:{}", proxy.port)).unwrap();
    let nearby = Settings { nearby: true, ..Settings::default() };
    let client = Client::with(&nearby, Names::of_the_machine(), Some(address));
    let _ = client.send(&ask("GET", "http://127.0.0.1:1/?sig=SECRET"), SHORT);
    let _ = client.send(&ask("GET", "http://10.255.255.1/?sig=SECRET"), SHORT);
    assert!(proxy.seen.try_recv().is_err());
    let refusing = Server::always("HTTP/1.1 407 SECRET\r\ncontent-length: 0\r\n\r\n");
    let address = Proxy::new(&format!("http://me:SECRET@127.0.0.1:{}", refusing.port)).unwrap();
    let client = Client::with(&settings, Names::of_the_machine(), Some(address));
    fails(get(&client, tell), true, "the proxy refuses to connect");
}
