//! Replays the seeds of every target, on any compiler: `RUSTFLAGS="--cfg fuzzing" cargo test --no-default-features`.

use std::{collections::BTreeSet, fs, path::Path};

/// The inputs of a directory beside this crate's manifest.
fn names(directory: &str) -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn replay(target: &str, run: fn(&[u8])) {
    let directory = format!("seeds/{target}");
    let seeds = names(&directory);
    assert!(!seeds.is_empty());
    for seed in seeds {
        println!("{directory}/{seed}");
        let data = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&directory).join(seed)).unwrap();
        // Cut and changed ones as well, as far as that is quick.
        for end in (0..data.len()).step_by(data.len() / 64 + 1) {
            run(&data[..end]);
            let mut changed = data.clone();
            changed[end] ^= 1;
            run(&changed);
        }
        run(&data);
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), leasehold::fuzzing::$target);
        })*

        #[test]
        fn every_target_is_here() {
            let here = BTreeSet::from([$(stringify!($target).to_owned()),*]);
            assert_eq!(names("seeds"), here);
            assert_eq!(names("fuzz_targets"), here.iter().map(|target| format!("{target}.rs")).collect());
        }
    };
}

targets! {
    address
    azure_answer
    azure_connection
    azure_listing
    azure_metadata
    azure_name
    azure_shared_key
    azure_token
    consul_answer
    consul_key
    consul_record
    file_name
    file_record
    kubernetes_answer
    kubernetes_decision
    kubernetes_exec
    kubernetes_kubeconfig
    kubernetes_record
    kubernetes_watch
    lease
    lockgate_answer
    ticket
}
