#![allow(missing_docs, clippy::unwrap_used)]
use assay::closure::*;
use assay::packages::*;
use assay::tree::*;
fn main() {
    let mut args = std::env::args().skip(1);
    let root = args.next().unwrap();
    let level = match args.next().unwrap().as_str() { "packages" => Level::Packages, "files" => Level::Files, _ => Level::Balanced };
    let out = args.next().unwrap();
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let mut rest: Vec<String> = args.collect();
    while rest.first().is_some_and(|a| a.contains('=') && !a.starts_with('-')) { env.push(rest.remove(0)); }
    let t = std::time::Instant::now();
    let tree = Tree::scan(std::fs::File::open(&root).unwrap().into()).unwrap();
    println!("scan {:?}", t.elapsed());
    let mut packages = Vec::new();
    let info = std::path::Path::new(&root).join("var/lib/dpkg/info");
    let mut lists: Vec<_> = std::fs::read_dir(info).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "list")).collect();
    lists.sort();
    for list in lists {
        let files = std::fs::read_to_string(&list).unwrap().lines().filter_map(|l| tree.resolve_parent(l)).map(|r| r.path).filter(|p| !tree.node(p).unwrap().is_directory()).collect();
        packages.push(Package { ecosystem: Ecosystem::Dpkg, name: list.file_stem().unwrap().to_str().unwrap().to_owned(), version: "1".into(), architecture: None, database: String::new(), files });
    }
    let inventory = Inventory::new(packages);
    println!("inventory {:?}", t.elapsed());
    let rules = Rules::builtin().unwrap();
    let roots = Roots { args: rest, env, cwd: "/".into(), ..Roots::default() };
    let t = std::time::Instant::now();
    let closure = close(&tree, &inventory, &rules, &roots, level, &|_| true);
    println!("close {:?}", t.elapsed());
    let is = |p: &str, c: &[Class]| c.contains(&closure.class(p));
    let execs = [Class::Program, Class::Library, Class::Script];
    let progs = [Class::Program, Class::Script];
    let files: Vec<&str> = tree.nodes().filter(|(_, n)| !n.is_directory()).map(|(p, _)| p).collect();
    let kept: Vec<&str> = files.iter().copied().filter(|p| closure.kept.contains_key(*p)).collect();
    let bytes = |l: &[&str]| l.iter().map(|p| { let n = tree.node(p).unwrap(); if n.is_file() { n.size } else { 0 } }).sum::<u64>();
    let count = |l: &[&str], c: &[Class]| l.iter().filter(|p| is(p, c)).count();
    println!("files {} of {} ({:.1}% hidden)", kept.len(), files.len(), 100.0 - 100.0 * kept.len() as f64 / files.len() as f64);
    println!("bytes {} of {} ({:.1}% hidden)", bytes(&kept), bytes(&files), 100.0 - 100.0 * bytes(&kept) as f64 / bytes(&files) as f64);
    println!("programs+scripts {} of {} ({:.1}% hidden)", count(&kept, &progs), count(&files, &progs), 100.0 - 100.0 * count(&kept, &progs) as f64 / count(&files, &progs) as f64);
    println!("executables {} of {} ({:.1}% hidden)", count(&kept, &execs), count(&files, &execs), 100.0 - 100.0 * count(&kept, &execs) as f64 / count(&files, &execs) as f64);
    println!("unfollowed {:?}", closure.unfollowed);
    println!("findings {:?}", closure.findings);
    for p in kept.iter().filter(|p| is(p, &execs)) { println!("  {:?} {} | {}", closure.class(p), p, closure.explain(p, &inventory).unwrap().join(" -> ")); }
    std::fs::write(&out, closure.paths().collect::<Vec<_>>().join("\n")).unwrap();
    if let Ok(ask) = std::env::var("EXPLAIN") { for p in ask.split(',') { println!("{:#?}", closure.explain(p, &inventory)); } }
    let mut why = std::collections::BTreeMap::new();
    for p in &kept { let k = &closure.kept[*p]; let o = match &k.origin { Origin::Root(r) => r.clone(), Origin::Path(_) => String::new() }; *why.entry(format!("{} {}", k.rule, o)).or_insert(0) += 1; }
    let mut why: Vec<_> = why.into_iter().collect(); why.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (w, n) in why.iter().take(30) { println!("  {n} {w}"); }
}
