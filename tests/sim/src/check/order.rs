//! By append order: a log's last value is the order of all its appends, and says by itself which of them happened. It
//! trusts no place in the log and no version.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, End, Floor, What};

/// Checks the appends and reads of every key that `last` has a value of.
pub fn check(calls: &[Call], last: &BTreeMap<String, String>) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(&call.key).or_default().push(call);
    }
    for (key, calls) in keys {
        let is_log = calls.iter().all(|call| matches!(call.what, What::Append { .. } | What::Read));
        if is_log {
            let last = last.get(key).map_or("", String::as_str);
            check_key(&calls, last).map_err(|error| format!("{key}: {error}"))?;
        }
    }
    Ok(())
}

fn check_key(calls: &[&Call], last: &str) -> Result<(), String> {
    let places = places(last)?;
    let appends: BTreeMap<&str, &Call> = calls
        .iter()
        .filter_map(|call| match &call.what {
            What::Append { token } => Some((token.as_str(), *call)),
            What::Put { .. } | What::Compare { .. } | What::Delete | What::Read => None,
        })
        .collect();
    if let Some(token) = places.keys().find(|token| !appends.contains_key(*token)) {
        return Err(format!("{token} was never sent"));
    }
    for (token, call) in &appends {
        match (&call.end, places.contains_key(token)) {
            (End::Written { .. }, false) => return Err(format!("lost: {call:?}")),
            (End::NotDone, true) => return Err(format!("refused, and there: {call:?}")),
            (_, _) => {}
        }
    }
    in_order(&appends, &places)?;
    reads(calls, &appends, &places, last)
}

/// Each token's place, counted from 1.
fn places(value: &str) -> Result<BTreeMap<&str, u64>, String> {
    let mut places = BTreeMap::new();
    for (at, token) in value.split_inclusive(';').enumerate() {
        if places.insert(token, at as u64 + 1).is_some() {
            return Err(format!("{token} is there twice"));
        }
    }
    Ok(places)
}

fn in_order(appends: &BTreeMap<&str, &Call>, places: &BTreeMap<&str, u64>) -> Result<(), String> {
    let steps = appends.iter().filter_map(|(token, call)| Some((call.returned?, *places.get(token)?)));
    let floor = Floor::new(steps.collect());
    for (token, call) in appends {
        let Some(place) = places.get(token) else { continue };
        if *place <= floor.before(call.invoked) {
            return Err(format!("stands before one that had returned when it began: {call:?}"));
        }
    }
    Ok(())
}

/// A read saw a front part of the last value: with all that had returned, or had been seen, when it began, and nothing
/// that began after it had returned.
fn reads(
    calls: &[&Call],
    appends: &BTreeMap<&str, &Call>,
    places: &BTreeMap<&str, u64>,
    last: &str,
) -> Result<(), String> {
    let seen: Vec<(&&Call, &str, u64)> = calls
        .iter()
        .filter_map(|call| match &call.end {
            End::Read { found, .. } => {
                let value = found.as_ref().map_or("", |(_, value)| value.as_str());
                Some((call, value, value.split_inclusive(';').count() as u64))
            }
            End::Unknown | End::NotDone | End::Written { .. } | End::Mismatch { .. } => None,
        })
        .collect();
    let acknowledged = appends.iter().filter(|(_, call)| matches!(call.end, End::Written { .. }));
    let mut steps: Vec<_> =
        acknowledged.filter_map(|(token, call)| Some((call.returned?, *places.get(token)?))).collect();
    steps.extend(seen.iter().filter_map(|(call, _, count)| Some((call.returned?, *count))));
    let floor = Floor::new(steps);
    for (call, value, count) in seen {
        if !last.starts_with(value) {
            return Err(format!("a value that it never had: {call:?}"));
        }
        if count < floor.before(call.invoked) {
            return Err(format!("stale: {call:?}"));
        }
        let tokens: BTreeSet<&str> = value.split_inclusive(';').collect();
        let early = |token: &&str| Some(appends[*token].invoked) > call.returned;
        if let Some(token) = tokens.iter().find(|token| early(token)) {
            return Err(format!("saw {token} before it was sent: {call:?}"));
        }
    }
    Ok(())
}
