use super::*;

fn sample() -> Profile {
    let shape = Shape::of_experts(2, 4, 2);
    let mut p = Profile::new(&shape, "abc", "law").with_pairs().with_signatures();
    p.all.counts[3] = 5;
    p.all.gate_mass[3] = 2.5;
    p.prompt.gated_norm[7] = 0.25;
    (p.tokens, p.prompt_tokens) = (5, 3);
    p.pairs.as_mut().unwrap()[5] = 5;
    p.signatures.as_mut().unwrap().push(9, &[0.0, 2.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    p.agreement = Some(0.75);
    p
}

#[test]
fn round_trip_and_sum() {
    let p = sample();
    assert_eq!(Profile::parse(&p.to_bytes().unwrap()).unwrap(), p);
    assert!((0..20).all(|_| p.to_bytes().unwrap() == sample().to_bytes().unwrap()));
    let mut twice = p.clone();
    twice.add(&p).unwrap();
    assert_eq!((twice.tokens, twice.all.counts[3], twice.prompt.gated_norm[7]), (10, 10, 0.5));
    assert_eq!(twice.layer_gate_mass(0), [0.0, 5.0, 0.0, 0.0]);
    assert_eq!(twice.layer_counts(0), [0, 10, 0, 0]);
    assert_eq!(twice.pairs.as_ref().unwrap()[5], 10);
    assert_eq!(twice.signatures.as_ref().unwrap().items, [9, 9]);
    // Halves of the one say nothing of the sum's.
    assert_eq!(twice.agreement, None);
    assert_eq!(Profile::parse(&twice.to_bytes().unwrap()).unwrap(), twice);
    let mut other = Profile::new(&Shape::of_experts(2, 4, 2), "another parent", "law");
    assert!(other.add(&p).is_err());
}

// A sum says of all its tokens what it says.
#[test]
fn what_one_of_two_lacks_the_sum_lacks() {
    let (p, plain) = (sample(), Profile { pairs: None, signatures: None, ..sample() });
    let mut sum = p.clone();
    sum.add(&Profile { known: Known { ranks: false, ..Known::default() }, ..plain }).unwrap();
    assert!(sum.pairs.is_none() && sum.signatures.is_none());
    assert_eq!(sum.known, Known { ranks: false, ..Known::default() });
    assert!(!Profile::parse(&sum.to_bytes().unwrap()).unwrap().known.ranks);
    let empty = Profile::new(&Shape::of_experts(2, 4, 2), "abc", "law");
    let mut first = empty.clone();
    first.add(&p).unwrap();
    assert_eq!(first, p);
    first.add(&empty).unwrap();
    assert_eq!(first, p);
}

#[test]
fn items_are_thinned_evenly() {
    /// Items 0 to `items`, a number each; `want` is what is kept within `most`.
    #[track_caller]
    fn check(most: usize, items: u64, want: &[i64]) {
        let mut kept = Signatures::default();
        (0..items).for_each(|i| kept.push_within(most, i, &[i as f32]));
        assert_eq!(kept.items, want);
        assert_eq!(kept.mass, want.iter().map(|i| *i as f32).collect::<Vec<_>>());
        assert_eq!(kept.seen, items);
    }
    check(4, 4, &[0, 1, 2, 3]);
    check(4, 5, &[0, 2, 4]);
    check(4, 8, &[0, 2, 4, 6]);
    check(4, 9, &[0, 4, 8]);
    check(5, 6, &[0, 2, 4]);
    check(5, 12, &[0, 4, 8]);
    let mut sum = Signatures { items: vec![1, 2, 3], mass: vec![1., 2., 3.], seen: 3, every: 1 };
    sum.append_within(4, &sum.clone(), 1);
    assert_eq!((&sum.items[..], sum.seen, sum.every), (&[1, 3, 2][..], 6, 2));
}

#[test]
fn hostile_files_are_refused() {
    let good = sample().to_bytes().unwrap();
    for cut in 0..good.len() {
        assert!(Profile::parse(&good[..cut]).is_err());
    }
    #[track_caller]
    fn text(from: &str, to: &str, want: &str) {
        let good = sample().to_bytes().unwrap();
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let bad = [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat();
        let error = Profile::parse(&bad).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    text("profile/1", "profile/9", "\"collegium.profile/9\" is not known");
    text("\"tokens\":\"5\"", "\"tokens\":\"-\"", "\"tokens\": invalid digit");
    text("\"agreement\":\"0.75\"", "\"agreement\":\"-0.7\"", "\"agreement\" is -0.7");
    text("\"agreement\":\"0.75\"", "\"agreement\":\"nan!\"", "\"agreement\": invalid float");
    text("\"items_every\":\"1\"", "\"items_every\":\"0\"", "1 items of 1, one in 0");
    text("\"items\":{", "\"itemz\":{", "one is missing");
    text("[2,4,4]", "[4,2,4]", "pairs is I64 [4, 2, 4]; I64 [2, 4, 4] was expected");
    // A shape without bytes could claim any size.
    let claims = r#"{"__metadata__":{"format":"collegium.profile/1","parent":"","architecture":"",
        "domain":"","tokens":"1","prompt_tokens":"0"},
        "counts":{"dtype":"I64","shape":SHAPE,"data_offsets":[0,0]}}"#;
    for shape in ["[4611686018427387904,2,0]", "[4611686018427387904,0,0]", "[0,4,2]", "[2,0,2]"] {
        let claims = claims.replace("SHAPE", shape);
        let claims = [&(claims.len() as u64).to_le_bytes(), claims.as_bytes()].concat();
        let error = Profile::parse(&claims).unwrap_err();
        assert!(error.contains("that cannot be"), "{error}");
    }
}

#[test]
fn hostile_numbers_are_refused_by_name() {
    #[track_caller]
    fn check(change: fn(&mut Profile), want: &str) {
        let mut profile = sample();
        change(&mut profile);
        let error = Profile::parse(&profile.to_bytes().unwrap()).unwrap_err();
        assert!(error.starts_with(want), "{error}");
    }
    check(|p| p.all.counts[9] = -1, "counts of layer 1, expert 0 is -1");
    check(|p| p.all.counts[9] = i64::MAX, "counts of layer 1, expert 0 is 9223372036854775807");
    check(|p| p.prompt.counts[2] = -7, "prompt.counts of layer 0, expert 1 is -7");
    check(|p| p.all.gate_mass[15] = f64::NAN, "gate_mass of layer 1, expert 3 is NaN");
    check(|p| p.all.output_norm[4] = f64::INFINITY, "output_norm of layer 1, expert 0 is inf");
    check(|p| p.all.gated_norm[2] = -0.5, "gated_norm of layer 0, expert 2 is -0.5");
    check(|p| p.all.gated_norm[2] = 1e300, "gated_norm of layer 0, expert 2 is 1");
    check(|p| p.tokens = u64::MAX, "\"tokens\" is 18446744073709551615");
    check(|p| p.pairs.as_mut().unwrap()[5] = 4, "pairs of layer 0: expert 1 with itself is 4");
    check(|p| p.pairs.as_mut().unwrap()[4] = 1, "pairs of layer 0: experts 1 and 0");
    check(|p| p.pairs.as_mut().unwrap()[31] = -1, "pairs of layer 1, expert 3 is -1");
    let mass = |p: &mut Profile| p.signatures.as_mut().unwrap().mass[3] = f32::NAN;
    check(mass, "the signature of item 0 has NaN");
    check(|p| p.signatures.as_mut().unwrap().items[0] = 0, "item 0 is on line 0");
    check(|p| p.signatures.as_mut().unwrap().seen = 0, "1 items of 0");
}
