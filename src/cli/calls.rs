//! One call on the map: `put`, `append`, `get`, `delete`, `cas`, `scan`.

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use raftmap::{Clerk, Compared, ConnectOptions, Keys, Page};
use serde_json::{Value, json};

use super::duration;
use super::exit::{Exit, Failure, Outcome, chain};
use super::output::{self, Style};

/// A session is given back within this long, or left to expire.
const CLOSE_MAX: Duration = Duration::from_millis(500);
/// The largest value that any cluster's limits allow: 1 MiB.
const VALUE_MAX: u64 = 1 << 20;
/// Pairs asked for at once.
const PAGE: u32 = 1_000;

/// How to reach a cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cluster {
    /// The nodes' addresses, separated by commas; some of them are enough
    #[arg(long, env = "RAFTMAP_SERVERS", value_name = "IP:PORT,…", value_delimiter = ',', required = true)]
    #[arg(value_parser = parse_address)]
    pub(crate) servers: Vec<SocketAddr>,
    /// Directory with ca.pem, cert.pem and key.pem; needed outside of loopback
    #[arg(long, env = "RAFTMAP_IDENTITY", value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// How long the command may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse_positive)]
    pub(crate) timeout: Duration,
}

impl Cluster {
    /// As the library wants it.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions { identity: self.identity.clone() }
    }

    /// A clerk whose calls end at this command's timeout.
    pub(crate) fn connect(&self) -> Result<Clerk, Failure> {
        let clerk = Clerk::connect(&self.servers, &self.options());
        // Nothing has been sent yet: what is wrong is what the command was told.
        clerk.map(|clerk| clerk.with_deadline(self.timeout)).map_err(|error| Failure::usage(chain(&error)))
    }
}

/// An address as it is typed.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is no address: write IP:PORT, for example 127.0.0.1:7001"))
}

/// A clerk for one command, and the time that is left.
struct Session {
    clerk: Clerk,
    end: Instant,
}

impl Session {
    fn open(cluster: &Cluster) -> Result<Self, Failure> {
        let end = Instant::now() + cluster.timeout;
        Ok(Self { clerk: cluster.connect()?, end })
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Gives the session back, so that one-shot commands do not fill the table; best effort.
    async fn close(self) {
        let most = self.left().min(CLOSE_MAX);
        if !most.is_zero() {
            // One that does not answer expires by itself.
            let _expires = tokio::time::timeout(most, self.clerk.with_deadline(most).close()).await;
        }
    }
}

/// Opens a clerk, makes one call, gives the session back. The call's end decides how the command ends.
async fn call<T, F>(cluster: &Cluster, make: impl FnOnce(Clerk) -> F) -> Result<T, Failure>
where
    F: Future<Output = raftmap::Result<T>>,
{
    let session = Session::open(cluster)?;
    let result = make(session.clerk.clone()).await;
    session.close().await;
    Ok(result?)
}

/// What was asked for is done, so a result that cannot be printed does not turn it into a failure.
fn done(printed: std::io::Result<()>, exit: Exit) -> Outcome {
    if let Err(error) = printed {
        output::note(&format!("raftmap: done, but the result cannot be printed: {error}"));
    }
    Ok(exit)
}

fn key_bytes(key: OsString) -> Vec<u8> {
    key.into_vec()
}

/// The value itself, or standard input where it is `-`.
fn value_bytes(value: OsString) -> Result<Vec<u8>, Failure> {
    if value != "-" {
        return Ok(value.into_vec());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(VALUE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::not_done(format!("cannot read the value from standard input: {error}")))?;
    if bytes.len() as u64 > VALUE_MAX {
        return Err(Failure::not_done(format!(
            "standard input holds more than {VALUE_MAX} bytes, the most any cluster takes as one value"
        )));
    }
    Ok(bytes)
}

/// Store a value under a key, and print the key's new version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: raftmap put color green\nExample: raftmap put picture - < picture.png")]
pub(crate) struct Put {
    /// The key: any bytes, not empty
    key: OsString,
    /// The value: any bytes; `-` reads it from standard input
    value: OsString,
    #[command(flatten)]
    cluster: Cluster,
}

impl Put {
    /// Carries it out.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let (key, value) = (key_bytes(self.key), value_bytes(self.value)?);
        let version = call(&self.cluster, |clerk| async move { clerk.put(&key, &value).await }).await?;
        done(print_version(style, version), Exit::Done)
    }
}

/// Append a value to what a key holds, and print the key's new version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: raftmap append journal 'one more line'")]
pub(crate) struct Append {
    /// The key: any bytes, not empty; created where it is absent
    key: OsString,
    /// What to append: any bytes; `-` reads it from standard input
    value: OsString,
    #[command(flatten)]
    cluster: Cluster,
}

impl Append {
    /// Carries it out.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let (key, value) = (key_bytes(self.key), value_bytes(self.value)?);
        let version = call(&self.cluster, |clerk| async move { clerk.append(&key, &value).await }).await?;
        done(print_version(style, version), Exit::Done)
    }
}

fn print_version(style: Style, version: u64) -> std::io::Result<()> {
    style.print(|| format!("version {version}"), || json!({ "version": version }))
}

/// Print the value of a key alone, byte for byte; exit code 1 where it is absent.
#[derive(Debug, clap::Args)]
#[command(after_help = "With --json: key, found, version, and value (value_base64 where it is not UTF-8).\n\
                        Example: raftmap get color")]
pub(crate) struct Get {
    /// The key
    key: OsString,
    /// Read whatever the nearest node has: possibly old, also without a leader
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl Get {
    /// Carries it out.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let (key, stale) = (key_bytes(self.key), self.stale);
        let wanted = key.clone();
        let found = call(&self.cluster, |clerk| async move {
            if stale { clerk.get_stale(&wanted).await } else { clerk.get(&wanted).await }
        });
        let found = found.await?;
        match (style, &found) {
            (Style::Human, Some(found)) => output::bytes(&found.value)?,
            (Style::Human, None) => output::note(&format!("raftmap: {} is absent", output::escape(&key))),
            (Style::Json, found) => {
                let mut object = output::keyed(&key);
                object.insert("found".into(), found.is_some().into());
                object.insert("version".into(), found.as_ref().map_or(0, |found| found.version).into());
                if let Some(found) = found {
                    output::insert_bytes(&mut object, "value", &found.value);
                }
                output::line(&Value::from(object).to_string())?;
            }
        }
        Ok(if found.is_some() { Exit::Done } else { Exit::No })
    }
}

/// Remove a key; exit code 1 where it was absent already.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: raftmap delete color")]
pub(crate) struct Delete {
    /// The key
    key: OsString,
    #[command(flatten)]
    cluster: Cluster,
}

impl Delete {
    /// Carries it out.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let key = key_bytes(self.key);
        let existed = call(&self.cluster, |clerk| async move { clerk.delete(&key).await }).await?;
        let words = || if existed { "deleted" } else { "was absent" }.to_owned();
        let printed = style.print(words, || json!({ "existed": existed }));
        done(printed, if existed { Exit::Done } else { Exit::No })
    }
}

/// Store a value if the key still has this version; exit code 1 where it has another one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: raftmap cas lock 0 mine      only if `lock` is absent")]
pub(crate) struct Cas {
    /// The key
    key: OsString,
    /// The version to replace, as `put`, `append` or `get --json` printed it; 0: only if the key is absent
    version: u64,
    /// The value: any bytes; `-` reads it from standard input
    value: OsString,
    #[command(flatten)]
    cluster: Cluster,
}

impl Cas {
    /// Carries it out.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let (key, version, value) = (key_bytes(self.key), self.version, value_bytes(self.value)?);
        let compared =
            call(&self.cluster, |clerk| async move { clerk.compare_and_put(&key, version, &value).await });
        match compared.await? {
            Compared::Swapped { version } => {
                let json = || json!({ "swapped": true, "version": version });
                done(style.print(|| format!("version {version}"), json), Exit::Done)
            }
            Compared::Mismatch { current } => {
                let words = || format!("not stored: the version is {current}, not {version}");
                done(style.print(words, || json!({ "swapped": false, "current": current })), Exit::No)
            }
        }
    }
}

/// Print the keys that begin with a prefix, in the order of their bytes, with versions and values.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "One line a pair: key, version and value, separated by tabs; control characters and bytes that are \
                        not UTF-8 are escaped.\nExample: raftmap scan user/ --limit 10\n\
                        Example: raftmap scan ''      all keys"
)]
pub(crate) struct Scan {
    /// What the keys begin with; empty: all of them
    prefix: OsString,
    /// Pairs at most
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    after: Option<OsString>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Scan {
    /// Carries it out, a page at a time.
    pub(crate) async fn run(self, style: Style) -> Outcome {
        let session = Session::open(&self.cluster)?;
        let mut scan = raftmap::Scan {
            keys: Keys::Prefix(key_bytes(self.prefix).into()),
            after: self.after.map(|key| key_bytes(key).into()),
            limit: 0,
        };
        let (mut left, mut found) = (self.limit, Vec::new());
        let more = loop {
            scan.limit = left.min(PAGE);
            let page = session.clerk.with_deadline(session.left()).scan(scan.clone()).await?;
            left = left.saturating_sub(page.pairs.len() as u32);
            scan.after = page.pairs.last().map(|pair| pair.key.clone()).or(scan.after);
            match style {
                Style::Human => print_pairs(&page)?,
                Style::Json => found.extend(page.pairs.iter().map(pair_json)),
            }
            if !page.more || left == 0 {
                break page.more;
            }
        };
        match style {
            Style::Human if more => {
                output::note("raftmap: there are more: raise --limit, or go on with --after")
            }
            Style::Human => {}
            Style::Json => output::line(&json!({ "pairs": found, "more": more }).to_string())?,
        }
        session.close().await;
        Ok(Exit::Done)
    }
}

fn print_pairs(page: &Page) -> std::io::Result<()> {
    let lines = page.pairs.iter().map(|pair| {
        format!("{}\t{}\t{}", output::escape(&pair.key), pair.version, output::escape(&pair.value))
    });
    output::line(&lines.collect::<Vec<_>>().join("\n"))
}

fn pair_json(pair: &raftmap::Pair) -> Value {
    let mut object = output::keyed(&pair.key);
    output::insert_bytes(&mut object, "value", &pair.value);
    object.insert("version".into(), pair.version.into());
    Value::from(object)
}
