//! One test a script; each script tells one story.

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            super::script::run(stringify!($name));
        })*

        /// A script that nobody runs would prove nothing.
        #[test]
        fn every_script_is_run() {
            let run = [$(stringify!($name)),*];
            let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/testscripts");
            for file in std::fs::read_dir(scripts).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(name.strip_suffix(".txt").is_some_and(|name| run.contains(&name)), "{name} is not run");
            }
        }
    };
}

scripts! {
    election
}
