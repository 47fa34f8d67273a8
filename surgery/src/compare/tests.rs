use engine::Shape;

use super::table::{Table, TableError, pearson, spearman};
use super::*;

/// Masks of two layers as drawn, `#` for kept.
fn items(masks: &[[&str; 2]]) -> Vec<Item> {
    let ids =
        |row: &&str| (0..).zip(row.chars()).filter(|(_, c)| *c == '#').map(|(id, _)| id).collect();
    let item = |(at, mask): (usize, &[&str; 2])| Item {
        name: ["a", "b", "c", "d"][at].to_owned(),
        kept: mask.iter().map(ids).collect(),
        utility: None,
        parent: "parent".to_owned(),
        profile: String::new(),
    };
    masks.iter().enumerate().map(item).collect()
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (a, b) => a == b,
    }
}

#[test]
fn overlaps_are_of_all_layers_at_once() {
    #[track_caller]
    fn check(masks: &[[&str; 2]], jaccard: f64, f: f64, distinct: Option<f64>) {
        let report = compare(&items(masks), None).unwrap();
        let pair = &report.pairs[0];
        assert!((pair.jaccard - jaccard).abs() < 1e-12 && (pair.f - f).abs() < 1e-12, "{pair:?}");
        assert!((pair.f - 2.0 * pair.jaccard / (1.0 + pair.jaccard)).abs() < 1e-12);
        assert!(close(pair.f_distinct, distinct), "{pair:?}");
    }
    check(&[["##..", "##.."], ["##..", "##.."]], 1.0, 1.0, None);
    check(&[["##..", "##.."], ["..##", "..##"]], 0.0, 0.0, None);
    // Two and one of two: three of five, not the mean of 1 and 1/3.
    check(&[["##..", "##.."], ["##..", ".##."]], 0.6, 0.75, None);
    // All have the first expert of the first layer: two shared of three, by two masks.
    let third = ["#..#", "..##"];
    check(&[["##..", "##.."], ["##..", ".##."], third], 0.6, 0.75, Some(2. / 3.));
    // Nothing but what is common.
    check(&[["##..", "##.."], ["##..", "##.."], ["##..", "##.."]], 1.0, 1.0, None);
    // Masks of two sizes: one shared of three.
    check(&[["#...", "...."], ["##..", "#..."]], 1. / 3., 0.5, None);
    check(&[["....", "...."], ["....", "...."]], 0.0, 0.0, None);
}

#[test]
fn cosines_weigh_layers_by_what_is_kept() {
    #[track_caller]
    fn check(masks: [[&str; 2]; 2], a: [[f64; 4]; 2], b: [[f64; 4]; 2], want: Option<(f64, f64)>) {
        let mut items = items(&masks);
        items[0].utility = Some(a.iter().map(|row| row.to_vec()).collect());
        items[1].utility = Some(b.iter().map(|row| row.to_vec()).collect());
        let pair = &compare(&items, None).unwrap().pairs[0];
        assert!(close(pair.cosine, want.map(|w| w.0)), "{pair:?}");
        assert!(close(pair.heterogeneity, want.map(|w| w.1)), "{pair:?}");
    }
    let (same, across) = ([1., 0., 0., 0.], [0., 1., 0., 0.]);
    let even = [["##..", "##.."], ["##..", "##.."]];
    check(even, [same, same], [same, same], Some((1.0, 0.0)));
    // Only directions count.
    check(even, [same, same], [[1e200, 0., 0., 0.], [1e-200, 0., 0., 0.]], Some((1.0, 0.0)));
    check(even, [same, same], [same, across], Some((0.5, 1.0)));
    // Three in the mean in the layer that agrees, one in the other.
    check(
        [["####", "#..."], ["##..", "#..."]],
        [same, same],
        [same, across],
        Some((0.75, 3f64.sqrt() / 3.0)),
    );
    // A layer that one never uses has no angle.
    check(even, [same, same], [[0.6, 0.8, 0., 0.], [0.; 4]], Some((0.6, 0.0)));
    check(even, [[0.; 4]; 2], [same, same], None);
}

#[test]
fn a_pool_counts_each_expert_once() {
    let items = items(&[["##..", "##.."], ["##..", ".##."], ["..##", "##.."]]);
    // An expert takes ten bytes in the first layer, and one in the second.
    let price = |kept: &[Vec<u32>]| (10 * kept[0].len() + kept[1].len()) as u64;
    let report = compare(&items, Some(&price)).unwrap();
    let pool = &report.pool;
    assert_eq!((&pool.distinct[..], pool.experts, pool.bytes), (&[4, 3][..], 7, Some(43)));
    assert_eq!(pool.dedup, 12.0 / 7.0);
    let added: Vec<_> = pool.marginal.iter().map(|m| (m.added, m.added_bytes)).collect();
    assert_eq!(added, [(4, Some(22)), (1, Some(1)), (2, Some(20))]);
    assert_eq!(compare(&items, None).unwrap().pool.bytes, None);
    let text = report.to_markdown();
    assert!(text.contains("| a | b | 0.600 | 0.750 |"), "{text}");
    assert!(text.contains("| c | 0.33 | 0.14 |"), "{text}");
    assert!(
        text.contains(
            "Together 7 distinct experts, 3 to 4 of a layer, 43 B; alone they would be 1.71"
        ),
        "{text}"
    );
}

#[test]
fn strangers_are_refused() {
    #[track_caller]
    fn check(spoil: fn(&mut Item), want: &str) {
        let mut items = items(&[["##..", "##.."], ["##..", "##.."]]);
        spoil(&mut items[1]);
        assert_eq!(compare(&items, None).unwrap_err().to_string(), want);
    }
    let other = "b is of parent another…, a is of parent…; compare specialists of one parent";
    check(|item| item.parent = "another".to_owned(), other);
    check(|item| item.kept.truncate(1), "b has 1 layers, a has 2");
    assert_eq!(compare(&[], None).unwrap_err(), CompareError::Nothing);
}

#[test]
fn a_profile_stands_for_the_mask_it_would_give() {
    let mut profile = Profile::new(&Shape::of_experts(1, 4, 1), "parent", "law");
    profile.all.counts = vec![1, 2, 3, 4];
    profile.all.gate_mass = vec![4.0, 3.0, 2.0, 1.0];
    let request = Request { target: mask::Target::Count(2), uniform: true };
    let item = |score| Item::of_profile("law", &profile, "hash", score, request);
    let gate = item(Score::Gate).unwrap();
    assert_eq!((gate.kept, gate.utility), (vec![vec![0, 1]], Some(vec![vec![4.0, 3.0, 2.0, 1.0]])));
    assert_eq!(item(Score::Frequency).unwrap().kept, [[2, 3]]);
    let error = item(Score::Reap).unwrap_err().to_string();
    assert!(error.starts_with("law: the profile has no norms"), "{error}");
}

/// The published pairs, see the file's own words.
const PUBLISHED: &str = include_str!("../../tests/data/near_far.csv");

/// Figures that can be recomputed from the published table, to four decimals.
#[test]
fn the_published_table_is_reproduced() {
    let table = Table::parse(PUBLISHED).unwrap();
    #[track_caller]
    fn check(table: &Table, without: Option<&str>, rows: usize, pair: (&str, &str), want: &str) {
        let got = table.correlations(without).unwrap();
        let found = got.pairs.iter().find(|c| (&c.first[..], &c.second[..]) == pair).unwrap();
        let r = format!("{:.*}", want.len() - 2, found.pearson.unwrap());
        assert_eq!((got.n, &r[..]), (rows, want));
    }
    check(&table, None, 20, ("F", "Y"), "0.7998");
    check(&table, None, 20, ("cosine", "Y"), "0.7999");
    check(&table, None, 20, ("F", "cosine"), "0.9999");
    check(&table, Some("law"), 14, ("F", "Y"), "0.709");
}

#[test]
fn correlations_are_those_of_the_textbook() {
    #[track_caller]
    fn check(a: &[f64], b: &[f64], r: Option<f64>, rho: Option<f64>) {
        assert!(close(pearson(a, b), r), "{:?}", pearson(a, b));
        assert!(close(spearman(a, b), rho), "{:?}", spearman(a, b));
    }
    check(&[1., 2., 3.], &[2., 4., 6.], Some(1.0), Some(1.0));
    check(&[1., 2., 3.], &[3., 2., 1.], Some(-1.0), Some(-1.0));
    // Ranks see the order alone.
    check(&[1., 2., 3.], &[1., 2., 9.], Some(8. / (2f64 * 38.).sqrt()), Some(1.0));
    // Equal values share a rank: 1.5, 1.5, 3 against 1, 2, 3.
    check(&[1., 1., 2.], &[1., 2., 3.], Some(0.75f64.sqrt()), Some(0.75f64.sqrt()));
    // What does not vary goes with nothing, also where its mean rounds.
    check(&[0.1, 0.1, 0.1], &[1., 2., 3.], None, None);
    check(&[1e300, -1e300, 0.], &[1., -1., 0.], Some(1.0), Some(1.0));
}

#[test]
fn bad_tables_are_refused_by_line() {
    #[track_caller]
    fn check(text: &str, want: &str) {
        let wrong = |error: TableError| error.to_string();
        let got = Table::parse(text).and_then(|table| table.correlations(None));
        assert_eq!(got.map_err(wrong).unwrap_err(), want);
    }
    let head = "visitor,target,Y,F\n";
    check(
        "# nothing\n",
        "the table is empty; its first line names the columns: visitor,target,Y,F,cosine",
    );
    let missing =
        "the column Y is missing; the first line names visitor, target, Y and the predictors";
    check("visitor,target,F\n", missing);
    let lone = "there is no predictor beside visitor, target and Y; add a column such as F";
    check("visitor,target,Y\n", lone);
    check("visitor,target,Y,F,F\n", "the column F is there twice");
    check(&format!("{head}a,b,1\n"), "line 2: 3 fields, the first line names 4");
    check(&format!("{head}\n# c\na,b,1,x\n"), "line 4: F is \"x\", which is no finite number");
    check(&format!("{head}a,b,NaN,1\n"), "line 2: Y is \"NaN\", which is no finite number");
    check(&format!("{head}a,b,1,inf\n"), "line 2: F is \"inf\", which is no finite number");
    check(&format!("{head}a,b,1,1\na,b,2,2\n"), "2 rows; a correlation needs 3 at the least");
    let table = Table::parse(PUBLISHED).unwrap();
    let error = table.correlations(Some("nobody")).unwrap_err();
    assert_eq!(error.to_string(), "no row has the visitor nobody");
    // In another order, with blanks and a mark of the file's encoding, it is the same table.
    let turned = "\u{feff}F , Y,target,visitor\r\n1,2,a,b\r\n2,3,a,c\r\n3,1,a,d\r\n";
    let r = Table::parse(turned).unwrap().correlations(None).unwrap().pairs[0].pearson;
    assert!(close(r, Some(-0.5)), "{r:?}");
}
