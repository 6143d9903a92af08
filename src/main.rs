//! The `raftmap` command: a node, calls on a cluster, and looks at both. `raftmap help` tells the rest.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
