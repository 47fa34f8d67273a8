//! Folders that change while their domains are in use.

use std::fs;

use crate::{Domains, Stamp, load, reread};

/// Writes each of `steps` (`path: text`, a text of `-` removes the file) and reads
/// again after each; shows what was changed and refused by the last, and the ids
/// that begin with `t` in use with their names.
#[track_caller]
fn check(steps: &[&[(&str, &str)]], want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (settings, domains) = (folder.path().join("collegium.toml"), folder.path().join("domains"));
    fs::create_dir(&domains).unwrap();
    fs::write(&settings, "").unwrap();
    // Domains whose name is "bad" are refused from outside.
    let sound = |all: &Domains| match all.iter().find(|d| d.name == "bad") {
        Some(domain) => Err(format!("{} is bad", domain.id)),
        None => Ok(()),
    };
    let mut running = load(Some(&settings)).unwrap().domains;
    let mut last = String::new();
    for step in steps {
        for (path, text) in *step {
            match *text {
                "-" => fs::remove_file(domains.join(path)).unwrap(),
                text => fs::write(domains.join(path), text).unwrap(),
            }
        }
        let got = reread(&domains, &running, &sound).unwrap();
        let refused: Vec<String> =
            got.refused.iter().map(|r| format!("{} ({})", r.id, r.why)).collect();
        let mine = got.domains.iter().filter(|d| d.id.starts_with('t'));
        let named: Vec<String> = mine.map(|d| format!("{}={}", d.id, d.name)).collect();
        last = format!(
            "changed [{}] refused [{}] use [{}]",
            got.changed.join(" "),
            refused.join("; "),
            named.join(" ")
        );
        running = got.domains;
        // What is in use is no change, however often it is read.
        let again = reread(&domains, &running, &sound).unwrap();
        assert!(again.changed.is_empty(), "{:?}", again.changed);
    }
    let last = last.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(last, want);
}

const TEA: (&str, &str) = ("tea.toml", "name = 'Tea'");

#[test]
fn files_come_change_and_go() {
    check(&[&[]], "changed [] refused [] use []");
    check(&[&[TEA]], "changed [tea] refused [] use [tea=Tea]");
    check(&[&[TEA], &[("tea.toml", "name = 'Chai'")]], "changed [tea] refused [] use [tea=Chai]");
    check(&[&[TEA], &[("tea.toml", "-")]], "changed [tea] refused [] use []");
    // A shipped domain that was replaced comes back.
    let law = ("law.toml", "enabled = false");
    check(&[&[law], &[("law.toml", "-")]], "changed [law] refused [] use []");
    let lines = ("tea.toml", "name = 'Tea'\nexamples_file = 'tea.txt'");
    check(
        &[&[lines, ("tea.txt", "a")], &[("tea.txt", "b")]],
        "changed [tea] refused [] use [tea=Tea]",
    );
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let other = ("tin.toml", "name = 'Tin'");
    check(
        &[&[("tea.toml", "name = 'a'\nname = 'b'")]],
        "changed [] refused [tea (domains/tea.toml:2: duplicate key)] use []",
    );
    // What it said before stays, and others come in.
    check(
        &[&[TEA], &[("tea.toml", "nmae = 'b'"), other]],
        "changed [tin] refused [tea (domains/tea.toml: unknown key \"nmae\"; did you mean \
         \"name\"?)] use [tea=Tea tin=Tin]",
    );
    check(
        &[&[TEA], &[("tea.toml", "name = 'bad'"), other]],
        "changed [tin] refused [tea (tea is bad)] use [tea=Tea tin=Tin]",
    );
    // A file once wrong and then gone is forgotten.
    check(&[&[("tea.toml", "?")], &[("tea.toml", "-")]], "changed [] refused [] use []");
    // One word for two: who was there keeps it.
    check(
        &[&[("tin.toml", "aliases = ['chai']")], &[("tea.toml", "aliases = ['chai']")]],
        "changed [] refused [tea (domains/tin.toml: \"chai\" already names the domain \"tea\"; take \
         another word for \"tin\", or remove it there by a file domains/tea.toml of your own)] use \
         [tin=tin]",
    );
}

#[test]
fn changes_that_need_each_other() {
    let to = |id: &str| format!("fallback = '{id}'");
    let (tea, tin) = (to("tin"), to("tap"));
    // Together, in whatever order.
    check(
        &[&[("tea.toml", &tea), ("tin.toml", &tin), ("tap.toml", "")]],
        "changed [tap tea tin] refused [] use [tap=tap tea=tea tin=tin]",
    );
    // One by one, where a fourth is wrong.
    check(
        &[&[
            ("tea.toml", &tea),
            ("tin.toml", &tin),
            ("tap.toml", ""),
            ("two.toml", "name = 'bad'"),
        ]],
        "changed [tap tea tin] refused [two (two is bad)] use [tap=tap tea=tea tin=tin]",
    );
    // What another falls back to cannot go.
    check(
        &[&[("tea.toml", &tea), ("tin.toml", "")], &[("tin.toml", "-")]],
        "changed [] refused [tin (domains/tea.toml: \"fallback\" is \"tin\", which is not an \
         enabled domain)] use [tea=tea tin=tin]",
    );
    // A word for a fallback is no change of it.
    check(&[&[("tea.toml", "fallback = 'Maths'")], &[]], "changed [] refused [] use [tea=tea]");
}

#[test]
fn a_stamp_sees_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tea.toml");
    let mut seen = vec![Stamp::of(folder.path())];
    let mut step = |what: &str| {
        let now = Stamp::of(folder.path());
        assert_eq!(now, Stamp::of(folder.path()));
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    fs::write(&path, "a").unwrap();
    step("added");
    fs::write(&path, "ab").unwrap();
    step("longer");
    // As editors save: another file of the same length takes the name.
    fs::write(folder.path().join("x"), "cd").unwrap();
    fs::rename(folder.path().join("x"), &path).unwrap();
    step("replaced");
    fs::remove_file(&path).unwrap();
    assert_eq!(Stamp::of(folder.path()), Stamp::default());
    assert_eq!(Stamp::of(&folder.path().join("nowhere")), Stamp::default());
}
