//! Why each system call is allowed, as one page for a browser: by the package whose software makes it.

use std::collections::BTreeMap;

use super::explain::{file, one_line, sentence};
use super::{Found, cves};
use crate::admission::filter::Reason;
use crate::cli::page::{begin, escaped, put};

/// Shows the calls that have what is typed, in their names or in what explains them.
const SEARCH: &str = "\
const box = document.getElementById('search');\
box.addEventListener('input', () => {\
  const text = box.value.toLowerCase();\
  for (const call of document.querySelectorAll('details')) {\
    call.hidden = !call.textContent.toLowerCase().includes(text);\
  }\
  for (const group of document.querySelectorAll('section')) {\
    group.hidden = !group.querySelector('details:not([hidden])');\
  }\
});";

/// The page about some of a container's calls.
pub(super) fn page(found: &Found, names: &[&String]) -> String {
    let name = &found.decision.name;
    let mut page = begin(&format!("{name}: system calls"), Some(SEARCH));
    let counts = &found.calls.syscalls.counts;
    put(
        &mut page,
        format_args!(
            "<h1>{}</h1>\n<p>{} of {} ELF files, {} of the OCI runtime, {} of policy and {} of tunings, with their siblings: \
             {} calls.</p>\n",
            escaped(name),
            counts.derived,
            found.calls.analysis.objects,
            counts.base,
            counts.policy,
            counts.tuning,
            counts.result
        ),
    );
    for why in &found.calls.syscalls.unknown {
        put(&mut page, format_args!("<p>Not known: {}</p>\n", escaped(why)));
    }
    page.push_str("<p><input id=\"search\" type=\"search\" placeholder=\"call, package, file or function\"></p>\n");
    let mut groups: BTreeMap<(u8, String), Vec<&str>> = BTreeMap::new();
    for name in names {
        groups.entry(group(found, name)).or_default().push(name);
    }
    for ((_, title), names) in &groups {
        put(
            &mut page,
            format_args!(
                "<section><h2>{} <span class=\"soft\">{}</span></h2>\n",
                escaped(title),
                names.len()
            ),
        );
        for name in names {
            call(&mut page, found, name);
        }
        page.push_str("</section>\n");
    }
    let out_of_reach = cves::out_of_reach(&found.calls);
    if !out_of_reach.is_empty() {
        put(
            &mut page,
            format_args!(
                "<section><h2>Kernel vulnerabilities that containerd's default profile leaves in reach and this does not \
                 <span class=\"soft\">as known on {}</span></h2>\n",
                escaped(cves::as_of())
            ),
        );
        for cve in out_of_reach {
            put(
                &mut page,
                format_args!(
                    "<details><summary><b>{}</b> <span class=\"soft\">{}</span></summary><p>{}</p><p>{}</p></details>\n",
                    escaped(&cve.id),
                    escaped(&cve.calls.join(", ")),
                    escaped(&cve.what),
                    escaped(&cve.source)
                ),
            );
        }
        page.push_str("</section>\n");
    }
    put(&mut page, format_args!("<script>{SEARCH}</script>\n</body>\n</html>"));
    page
}

fn reason<'a>(found: &'a Found, name: &str) -> &'a Reason {
    found.calls.reasons.get(name).unwrap_or(&Reason::Unneeded)
}

/// The call whose way through the files explains this one.
fn origin<'a>(reason: &'a Reason, name: &'a str) -> &'a str {
    match reason {
        Reason::Sibling { of, .. } => of,
        _ => name,
    }
}

/// Where a call stands on the page: packages first.
fn group(found: &Found, name: &str) -> (u8, String) {
    let reason = reason(found, name);
    if !reason.allows() {
        return (3, "Not allowed".to_owned());
    }
    let route = found.calls.analysis.routes.get(origin(reason, name));
    let begins = route
        .and_then(|route| route.steps.first())
        .and_then(|step| found.needs.objects.get(step.object));
    match (reason, begins) {
        (Reason::Files | Reason::Attestation | Reason::Sibling { .. }, Some(elf)) if elf.package.is_empty() => {
            (1, elf.path.clone())
        }
        (Reason::Files | Reason::Attestation | Reason::Sibling { .. }, Some(elf)) => (0, elf.package.clone()),
        (Reason::Files | Reason::Attestation | Reason::Sibling { .. }, None) => {
            (2, "Known, not found in code".to_owned())
        }
        _ => (2, "OCI runtime and policy".to_owned()),
    }
}

fn call(page: &mut String, found: &Found, name: &str) {
    let reason = reason(found, name);
    put(
        page,
        format_args!(
            "<details><summary><b>{}</b> <span class=\"soft\">{}</span></summary>",
            escaped(name),
            escaped(&sentence(found, reason))
        ),
    );
    let route = found.calls.analysis.routes.get(origin(reason, name));
    if let Some(route) =
        route.filter(|_| matches!(reason, Reason::Files | Reason::Attestation | Reason::Sibling { .. }))
    {
        page.push_str("<ul>");
        let mut last = None;
        for step in &route.steps {
            let elf = found.needs.objects.get(step.object);
            if let Some(elf) = elf.filter(|_| last != Some(step.object)) {
                put(page, format_args!("<li><b>{}</b></li>", escaped(&file(elf))));
            }
            last = Some(step.object);
            put(page, format_args!("<li>{}</li>", escaped(&step.function)));
        }
        if route.fact.is_empty() {
            put(page, format_args!("<li>system call at {:#x}</li>", route.site));
        } else {
            put(page, format_args!("<li>{}</li>", escaped(&one_line(&route.fact))));
        }
        page.push_str("</ul>");
    }
    page.push_str("</details>\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::filter::{Origin, Shown};
    use crate::admission::{Accounted, Analysis, Elf, Needs, Route, Step, Syscalls};
    use crate::policy::SeccompMode;

    fn found(hostile: &str) -> Found {
        let elf = |path: &str, package: &str| Elf {
            path: path.to_owned(),
            mount: None,
            is_interpreter: false,
            package: package.to_owned(),
            standing: Accounted::Sbom,
        };
        let step = |object: usize, function: &str| Step {
            object,
            function: function.to_owned(),
        };
        let route = |steps: Vec<Step>| Route {
            steps,
            site: 0x1234,
            fact: String::new(),
        };
        let sibling = Reason::Sibling {
            of: "ptrace".to_owned(),
            reason: "they belong together".to_owned(),
        };
        Found {
            decision: serde_json::from_value(json!({
                "version": crate::admission::VERSION, "time": "", "namespace": "", "container": "", "verdict": "allow",
                "code": "", "reason": "", "fix": "", "policy": true, "name": hostile, "repeated": false, "phases": [],
            }))
            .unwrap(),
            needs: Needs {
                objects: vec![
                    elf("/usr/bin/app", "app 1.0"),
                    elf("/lib/libc.so.6", "libc6 2.36"),
                    elf(hostile, ""),
                ],
                ..Needs::default()
            },
            calls: Shown {
                profile: None,
                syscalls: Syscalls {
                    mode: SeccompMode::Enforce,
                    from: Origin::Files,
                    counts: Default::default(),
                    unknown: vec![hostile.to_owned()],
                    profile: None,
                    tunings: Vec::new(),
                    unheard: String::new(),
                },
                analysis: Analysis {
                    routes: [
                        ("ptrace".to_owned(), route(vec![step(0, "main"), step(1, "ptrace")])),
                        ("bpf".to_owned(), route(vec![step(2, hostile)])),
                    ]
                    .into(),
                    ..Analysis::default()
                },
                attested: None,
                reasons: [
                    ("ptrace".to_owned(), Reason::Files),
                    ("process_vm_readv".to_owned(), sibling),
                    ("bpf".to_owned(), Reason::Files),
                    ("prctl".to_owned(), Reason::Runtime),
                    ("mount".to_owned(), Reason::Denied),
                ]
                .into(),
            },
        }
    }

    #[test]
    fn calls_stand_under_the_package_whose_software_makes_them() {
        let found = found("registry.example/app:1");
        let names: Vec<String> = ["bpf", "mount", "prctl", "process_vm_readv", "ptrace"]
            .map(str::to_owned)
            .into();
        let page = page(&found, &names.iter().collect::<Vec<_>>());
        let order = [
            "<h2>app 1.0 <span class=\"soft\">2</span></h2>",
            "<b>process_vm_readv</b>",
            "<b>ptrace</b>",
            "<li><b>/usr/bin/app (app 1.0, in the SBOM)</b></li><li>main</li>",
            "<li><b>/lib/libc.so.6 (libc6 2.36, in the SBOM)</b></li><li>ptrace</li><li>system call at 0x1234</li>",
            "<h2>registry.example/app:1 <span class=\"soft\">1</span></h2>",
            "<h2>OCI runtime and policy <span class=\"soft\">1</span></h2>",
            "<h2>Not allowed <span class=\"soft\">1</span></h2>",
            "Kernel vulnerabilities",
            "CVE-2017-5123",
        ];
        let mut rest = page.as_str();
        for part in order {
            let at = rest.find(part);
            rest = &rest[at.unwrap_or_else(|| panic!("{part} is not where it belongs in {page}"))..];
        }
        assert!(!page.contains("CVE-2019-13272"), "ptrace is allowed");
    }

    #[test]
    fn no_name_in_an_image_is_more_than_text_and_nothing_else_runs() {
        let hostile = "</span><script>alert(1)</script>";
        let names = ["bpf".to_owned(), "ptrace".to_owned()];
        let page = page(&found(hostile), &names.iter().collect::<Vec<_>>());
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"));
        assert!(!page.contains("http://"), "it loads nothing");
        assert!(!page.contains("unsafe-inline' "), "no script but the one that is named");
    }
}
