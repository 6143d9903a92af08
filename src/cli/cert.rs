//! `raftmap cert`: a cluster's authority, and the identities that it signs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use raftmap::net::identity::{self, IdentityError};
use serde_json::json;

use super::exit::{Exit, Failure, Outcome, chain};
use super::output::{self, Style};

/// Make certificates.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a cluster's authority: ca.pem, which everyone gets, and ca-key.pem, which stays
    #[command(after_help = "Example: raftmap cert new-cluster --out secrets/cluster")]
    NewCluster {
        /// Where to write it; made where it is missing, never written over
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a node's identity
    #[command(
        after_help = "Example: raftmap cert node --cluster secrets/cluster --id 1 --out secrets/node-1"
    )]
    Node {
        /// The authority's directory
        #[arg(long, value_name = "DIR")]
        cluster: PathBuf,
        /// The node's id
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Where to write it; made where it is missing, never written over
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a client's identity
    #[command(
        after_help = "Example: raftmap cert client --cluster secrets/cluster --name alice --out secrets/alice"
    )]
    Client {
        /// The authority's directory
        #[arg(long, value_name = "DIR")]
        cluster: PathBuf,
        /// The client's name: letters, digits, `.`, `_`, `-`
        #[arg(long)]
        name: String,
        /// Where to write it; made where it is missing, never written over
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Makes what was asked for.
pub(crate) fn run(command: Command, style: Style) -> Outcome {
    match command {
        Command::NewCluster { out } => {
            let cluster = identity::new_cluster(&out).map_err(refused)?;
            told(style, &format!("the authority of cluster {cluster}"), &out)
        }
        Command::Node { cluster, id, out } => {
            identity::issue_node(&cluster, id, &out).map_err(refused)?;
            told(style, &format!("the identity of node {id}"), &out)
        }
        Command::Client { cluster, name, out } => {
            identity::issue_client(&cluster, &name, &out).map_err(refused)?;
            told(style, &format!("the identity of client {name}"), &out)
        }
    }
}

/// A name that cannot be one and a directory that is not there are wrong arguments; the rest is in the files.
fn refused(error: IdentityError) -> Failure {
    let words = chain(&error);
    match error {
        IdentityError::ClientName { .. } | IdentityError::NodeId => Failure::usage(words),
        IdentityError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Failure::usage(words),
        IdentityError::Io { .. }
        | IdentityError::Exists { .. }
        | IdentityError::Permissions { .. }
        | IdentityError::Owner { .. }
        | IdentityError::Malformed { .. }
        | IdentityError::WrongRole { .. }
        | IdentityError::Needed { .. }
        | IdentityError::Make(_) => Failure::not_done(words),
    }
}

fn told(style: Style, made: &str, dir: &Path) -> Outcome {
    let human = || format!("{made} is in {}; keep its key to yourself", dir.display());
    if let Err(error) = style.print(human, || json!({ "made": made, "dir": dir })) {
        output::note(&format!("raftmap: done, but the result cannot be printed: {error}"));
    }
    Ok(Exit::Done)
}
