//! Bad input: exit code 2, nothing on stdout, and one line on stderr that says what is wrong and
//! where.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use support::{Node, run, wait_for};
use tempfile::TempDir;

mod support;

const ENTRY: &str = "[[origin]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"\n";

fn list(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("origins.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

/// Runs a node that must refuse to start, and returns its one line.
fn refusal(args: &[&str]) -> String {
    let output = run(args);
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{args:?} told {told:?}");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    assert_eq!(told.lines().count(), 1, "{args:?} told {told:?}");
    assert!(told.starts_with("origin-health: "), "{told:?}");
    told.trim_end().to_owned()
}

fn refused_list(path: &Path) -> String {
    let path = path.to_str().expect("text");
    refusal(&["node", "--name", "a", "--bind", "127.0.0.1:0", "--origins", path])
}

/// Checks that a list with `text` is refused at `line` for `reason`.
fn assert_refused(text: &str, line: usize, reason: &str) {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, text);
    let told = refused_list(&path);
    let expected = format!("origin-health: {}:{line}: {reason}", path.display());
    assert!(told.starts_with(&expected), "{told:?} is not {expected:?}");
}

#[test]
fn an_unreadable_file() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("missing.toml");
    let told = refused_list(&path);
    let expected = format!("{}:1: cannot read the list of origins: No such file", path.display());
    assert!(told.contains(&expected), "{told:?}");
    assert!(refused_list(dir.path()).contains(":1: cannot read the list of origins: "));
}

#[test]
fn a_malformed_file() {
    assert_refused("[[origin]]\nname = \"a\nurl = 1\n", 2, "");
    assert_refused("[[origin]]\nname = \"a\"\n", 1, "missing field `url`");
}

#[test]
fn bytes_that_are_no_text() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("origins.toml");
    std::fs::write(&path, [0xff, 0xfe]).expect("a file");
    assert!(refused_list(&path).contains("origins.toml:1: not UTF-8 at byte 0"));
    std::fs::write(&path, b"# one\n# two\nname = \"\xe9\"\n").expect("a file");
    assert!(refused_list(&path).contains("origins.toml:3: not UTF-8 at byte 20"));
}

#[test]
fn an_unknown_key() {
    assert_refused(&format!("{ENTRY}colour = \"red\"\n"), 4, "unknown field `colour`");
}

#[test]
fn a_duplicate_name() {
    assert_refused(&format!("{ENTRY}\n{ENTRY}"), 6, "duplicate origin name \"a\", first at line 2");
}

#[test]
fn an_empty_list() {
    assert_refused("", 1, "the list has no [[origin]]");
    assert_refused("[defaults]\ninterval = \"1s\"\n", 1, "the list has no [[origin]]");
}

#[test]
fn a_zero_interval() {
    assert_refused(&format!("{ENTRY}interval = \"0s\"\n"), 4, "interval must be above zero");
    assert_refused(&format!("{ENTRY}interval = \"1ns\"\n"), 4, "interval must be at least 10 ms");
}

#[test]
fn a_timeout_above_the_interval() {
    let text = format!("{ENTRY}interval = \"1s\"\ntimeout = \"1001ms\"\n");
    assert_refused(&text, 5, "timeout 1s 1ms is above the interval 1s");
}

#[test]
fn a_url_that_is_not_http() {
    let text = "[[origin]]\nname = \"a\"\nurl = \"ftp://127.0.0.1/\"\n";
    assert_refused(text, 3, "url must be http or https, not \"ftp\"");
}

#[test]
fn a_url_that_cannot_be_meant() {
    for (url, why) in [
        ("http:shop", "it must have a host after ://"),
        ("http:///shop", "it must have a host after ://"),
        ("http://127.0.0.1:0/", "port 0 is nobody's"),
        ("http://user:secret@127.0.0.1/", "it must not hold a user name or password"),
    ] {
        let text = format!("[[origin]]\nname = \"a\"\nurl = \"{url}\"\n");
        assert_refused(&text, 3, &format!("bad url: {why}"));
    }
}

#[test]
fn a_file_above_64_mib() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("origins.toml");
    // Sparse: the size alone is enough to be refused.
    File::create(&path).and_then(|file| file.set_len((64 << 20) + 1)).expect("a sparse file");
    assert!(refused_list(&path).contains("origins.toml:1: the file has 67108865 bytes"));
}

#[test]
fn a_bad_address() {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, ENTRY);
    let path = path.to_str().expect("text");
    let node = ["node", "--name", "a", "--origins", path];
    let told = refusal(&[&node[..], &["--bind", "0.0.0.0:0"]].concat());
    assert!(told.contains("--bind 0.0.0.0:0: the address must "), "{told:?}");
    for (seed, why) in [
        ("127.0.0.1:0", "it has no port"),
        ("0.0.0.0:7000", "it is nobody's address"),
        ("[::1]:7000", "its family is not that of --bind"),
    ] {
        let told = refusal(&[&node[..], &["--bind", "127.0.0.1:0", "--join", seed]].concat());
        assert!(told.contains(&format!("--join {seed}: {why}")), "{told:?}");
    }
    for (bad, flag) in [
        (["--bind", "nowhere", "--http", "127.0.0.1:0"], "--bind"),
        (["--bind", "127.0.0.1:99999", "--http", "127.0.0.1:0"], "--bind"),
        (["--bind", "127.0.0.1:0", "--http", "127.0.0.1"], "--http"),
        (["--bind", "127.0.0.1:0", "--join", "seed"], "--join"),
    ] {
        let args = [&node[..], &bad[..]].concat();
        let told = refusal(&args);
        assert!(told.contains("invalid value") && told.contains(flag), "{told:?}");
    }
}

#[test]
fn a_port_in_use() {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, ENTRY);
    let path = path.to_str().expect("text");
    let node = ["node", "--name", "a", "--origins", path];
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = udp.local_addr().expect("an address").to_string();
    let told = refusal(&[&node[..], &["--bind", &taken]].concat());
    assert!(told.contains(&format!("cannot listen on {taken}: ")), "{told:?}");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = tcp.local_addr().expect("an address").to_string();
    let told = refusal(&[&node[..], &["--bind", "127.0.0.1:0", "--http", &taken]].concat());
    assert!(told.contains(&format!("cannot bind HTTP to {taken}: ")), "{told:?}");
}

#[test]
fn bad_arguments() {
    for args in [
        &["--colour"][..],
        &["--nodes", "0"],
        &["--loss", "101"],
        &["--for", "soon"],
        &["node"],
        &["node", "--name", "two words", "--bind", "127.0.0.1:0", "--origins", "o"],
        &["--nodes", "3", "node"],
    ] {
        refusal(args);
    }
}

#[test]
fn help_is_no_fault() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("--demo-origins") && output.stderr.is_empty());
}

#[test]
fn a_name_that_a_live_member_bears() {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, ENTRY);
    let holder = Node::start("twin", &path, &[]);
    let mut newcomer = Node::start("twin", &path, &[holder.bind]);
    assert_eq!(newcomer.ended().code(), Some(2));
    let told = newcomer.error_line();
    let expected =
        format!("origin-health: the name \"twin\" is taken by a live member at {}", holder.bind);
    assert_eq!(told, expected);
    assert_eq!(newcomer.error_lines(), [""; 0]);
    assert_eq!(holder.members(), ["twin"]);
}

#[test]
fn an_unreachable_seed_is_tried_on_and_told() {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, ENTRY);
    // Bound and never read, so that the port answers nobody.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let seed = silent.local_addr().expect("an address");
    let node = Node::start("alone", &path, &[seed]);
    assert_eq!(node.get("/health").0, 503);
    let told = node.error_line();
    assert_eq!(told, format!("origin-health: no answer from {seed} yet, still trying to join"));
    assert_eq!(node.get("/health").0, 503);
    assert_eq!(node.statuses()[0]["state"], "unknown", "it answers all the while");
    drop(silent);
    // The seed comes up at the address that the node has kept trying.
    let at = seed.to_string();
    let args = ["node", "--name", "seed", "--bind", &at, "--origins"];
    let mut late = std::process::Command::new(env!("CARGO_BIN_EXE_origin-health"))
        .args(args)
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the built program");
    wait_for("the join", || (node.get("/health").0 == 200).then_some(()));
    late.kill().expect("a running process");
    late.wait().expect("its end");
}

#[test]
fn sigterm_is_a_graceful_leave() {
    let dir = TempDir::new().expect("a directory");
    let path = list(&dir, ENTRY);
    let stays = Node::start("stays", &path, &[]);
    let mut leaves = Node::start("leaves", &path, &[stays.bind]);
    wait_for("two members", || (stays.members().len() == 2).then_some(()));
    wait_for("the join", || (leaves.get("/health").0 == 200).then_some(()));
    leaves.terminate();
    assert_eq!(leaves.ended().code(), Some(0));
    // The leaver ends only after its goodbye was acknowledged.
    assert_eq!(stays.members(), ["stays"]);
    let (_, body) = stays.get("/members.json");
    assert_eq!(
        (&body["former"][0]["name"], &body["former"][0]["state"]),
        (&"leaves".into(), &"left".into())
    );
}
