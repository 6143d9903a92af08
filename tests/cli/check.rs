//! `raftmap check`: its verdict on histories that are true, doctored and none at all, by exit code and in words.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::cluster::{Ended, raftmap, run};

/// What two clients did: everything in it can be true.
fn history() -> Vec<Value> {
    let line = |client: u32, operation: &str, value: Value, invoked: u64, result: Value, index: u64| {
        let returned = invoked + 5;
        json!({
            "client": client, "operation": operation, "key": "color", "value": value,
            "invoked_ns": invoked, "returned_ns": returned, "result": result, "index": index,
        })
    };
    vec![
        line(1, "append", json!("a;"), 10, json!({ "version": 3 }), 3),
        line(2, "append", json!("b;"), 20, json!({ "version": 4 }), 4),
        line(1, "get", Value::Null, 30, json!({ "version": 4, "value": "a;b;" }), 4),
        line(2, "append", json!("c;"), 40, json!({ "version": 5 }), 5),
        line(2, "get", Value::Null, 50, json!({ "version": 5, "value": "a;b;c;" }), 5),
    ]
}

/// The command on these lines, in words and as JSON: one exit code.
#[track_caller]
fn check(lines: &str, code: i32) -> (Ended, Ended) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    fs::write(&file, lines).unwrap();
    let file = file.display().to_string();
    (run(&["check", &file]).code(code), run(&["check", &file, "--json"]).code(code))
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_history_that_can_be_true_passes() {
    let (words, json) = check(&text(&history()), 0);
    let json = json.json();
    assert_eq!((&json["passed"], &json["operations"], &json["keys"]), (&true.into(), &5.into(), &1.into()));
    assert_eq!((&json["unknown"], &json["examples"]), (&0.into(), &json!([])));
    assert!(words.text().contains('5') && words.stderr.is_empty(), "{words:?}");
}

#[test]
fn a_doctored_history_does_not_pass_and_the_lie_is_shown() {
    let doctored = |change: fn(&mut Vec<Value>)| {
        let mut lines = history();
        change(&mut lines);
        text(&lines)
    };
    let cases = [
        ("lost", doctored(|lines| lines[4]["result"]["value"] = "a;b;".into())),
        ("stale", doctored(|lines| lines[2]["result"] = json!({ "version": 3, "value": "a;" }))),
        ("doubled", doctored(|lines| lines[4]["result"]["value"] = "a;b;b;c;".into())),
        ("swapped", doctored(|lines| lines[4]["result"]["value"] = "b;a;c;".into())),
    ];
    for (what, lines) in cases {
        let (words, json) = check(&lines, 1);
        let json = json.json();
        let examples = json["examples"].as_array().unwrap();
        assert!(json["passed"] == false && !examples.is_empty(), "{what}: {json}");
        let shown = examples[0].as_str().unwrap();
        assert!(words.text().contains(shown), "{what}: {shown:?} is not in {words:?}");
    }
}

#[test]
fn what_is_no_history_is_refused_by_its_line() {
    let sound = text(&history());
    let third = |line: &str| {
        let mut lines: Vec<&str> = sound.lines().collect();
        lines[2] = line;
        lines.join("\n")
    };
    let torn = &sound[..sound.len() - 20];
    for (lines, words) in [
        (third("no JSON"), "line 3: "),
        (third("{}"), "line 3: "),
        (third(&sound.lines().next().unwrap().replace("append", "sing")), "line 3: "),
        (torn.to_owned(), "line 5: "),
        (String::new(), "no operation"),
    ] {
        let (told, json) = check(&lines, 2);
        assert!(told.stderr.contains(words) && told.stderr.contains("history.jsonl"), "{words}: {told:?}");
        assert!(told.stdout.is_empty(), "{words}: {told:?}");
        let json = json.json();
        assert!(json["exit_code"] == 2 && json["error"].as_str().unwrap().contains(words), "{words}: {json}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_and_standard_input_will_do() {
    let missing = run(&["check", "/nonexistent/history.jsonl"]).code(2);
    assert!(missing.stderr.contains("/nonexistent/history.jsonl"), "{missing:?}");
    run(&["check"]).code(2);
    for (change, code) in [("a;b;c;", 0), ("a;c;", 1)] {
        let mut piped = raftmap(&["check", "-"]);
        let mut piped =
            piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = text(&history()).replace("a;b;c;", change);
        std::io::Write::write_all(&mut piped.stdin.take().unwrap(), lines.as_bytes()).unwrap();
        Ended::of(piped.wait_with_output().unwrap()).code(code);
    }
}
