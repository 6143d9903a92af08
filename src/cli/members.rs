//! Members on the command line: `1=127.0.0.1:7001,2=127.0.0.1:7002`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One member of the list.
pub(crate) fn parse(text: &str) -> Result<(u64, SocketAddr), String> {
    let refuse = || format!("`{text}` is no member: write ID=IP:PORT, for example 1=127.0.0.1:7001");
    let (id, address) = text.trim().split_once('=').ok_or_else(refuse)?;
    Ok((id.parse().map_err(|_| refuse())?, address.parse().map_err(|_| refuse())?))
}

/// The list, by id; an id that is listed twice is refused.
pub(crate) fn collect(listed: Vec<(u64, SocketAddr)>) -> Result<BTreeMap<u64, SocketAddr>, String> {
    let mut members = BTreeMap::new();
    for (id, address) in listed {
        if let Some(other) = members.insert(id, address) {
            return Err(format!("node {id} is listed twice, at {other} and at {address}"));
        }
    }
    Ok(members)
}
