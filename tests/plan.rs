//! `smolter plan`, which touches no device.

use crate::support::{run, smolter};
use std::time::{Duration, Instant};

#[test]
fn the_largest_plans_take_seconds_and_say_what_matters() {
    for recipe in ["smollm2-135m", "smollm2-1.7b"] {
        let begun = Instant::now();
        let outcome = run(&mut smolter(&["plan", "--recipe", recipe, "--memory", "80GiB"])).expect(0, &[]);
        // Minutes would mean that something grows with the number of steps.
        assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
        for words in
            ["passes of", "recomputation '", "weights", "gradients", "moments", "activations a", "MiB"]
        {
            assert!(outcome.stdout.contains(words), "{recipe}: no '{words}' in {}", outcome.stdout);
        }
    }
}

#[test]
fn less_memory_gives_a_plan_that_fits_it() {
    let total = |memory: &str| {
        let outcome =
            run(&mut smolter(&["plan", "--recipe", "smollm2-135m", "--memory", memory])).expect(0, &[]);
        let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with("all ")).expect("a sum");
        line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number")
    };
    let (small, large) = (total("3GiB"), total("4GiB"));
    assert!(small < large && small <= 3072.0 && large <= 4096.0, "{small} MiB and {large} MiB");
}

#[test]
fn what_cannot_fit_is_an_error_that_says_how_much_it_takes() {
    run(&mut smolter(&["plan", "--memory", "1MiB"])).expect(2, &["nothing fits 1.0 MiB", "takes"]);
    run(&mut smolter(&["plan", "--memory", "much"]))
        .code
        .filter(|&code| code == 2)
        .expect("a wrong size is refused");
}
