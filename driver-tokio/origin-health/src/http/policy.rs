//! The Content-Security-Policy of the page: nothing may be loaded, and nothing may run but the
//! page's own script and style, each named by its hash. A name of an origin that found its way into
//! the document as markup would still be dead text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

/// The policy of a page that has one `<script>` and one `<style>`.
pub(super) fn of(page: &str) -> String {
    let (script, style) = (hash(element(page, "script")), hash(element(page, "style")));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

fn hash(text: &str) -> String {
    STANDARD.encode(digest(&SHA256, text.as_bytes()))
}

/// What stands in the first element of that name; empty if there is none.
fn element<'p>(page: &'p str, name: &str) -> &'p str {
    let inside = page.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    inside.split_once(&format!("</{name}>")).map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::super::PAGE;
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_element() {
        let policy = of("<style>\n</style><script>alert(1)</script>");
        // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
        let script = "script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='";
        assert!(policy.contains(script), "{policy}");
    }

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        for name in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{name}")).count(), 1);
            assert!(!element(PAGE, name).is_empty());
        }
        // Attributes of this kind are refused by the policy, and would do nothing.
        for refused in [" style=", " onclick=", " src=", "innerHTML", "document.write"] {
            assert!(!PAGE.contains(refused), "{refused}");
        }
    }
}
