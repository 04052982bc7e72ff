//! The status page in a real browser; see `browser.py`. Without a browser there is nothing to test,
//! unless `REQUIRE_BROWSER` says that there must be one.

use std::path::Path;
use std::process::Command;

#[test]
fn the_page_shows_what_the_node_tells() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser.py");
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let mut command = Command::new("python3");
    command.arg(script).arg(env!("CARGO_BIN_EXE_origin-health")).arg("--shots").arg(&shots);
    let required = std::env::var_os("REQUIRE_BROWSER").is_some();
    let Ok(output) = command.output() else {
        assert!(!required, "there is no python3 to drive the browser");
        println!("skipped: no python3");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{complaints}");
    assert!(!required || told.ends_with("passed\n"), "{told}{complaints}");
    println!("{told}screenshots: {}", shots.display());
}
