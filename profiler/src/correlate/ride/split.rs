//! A whole divided by weights, so that the parts add up to it.

use super::Share;

/// Divides a share by weights; what `rest` weighs is the last part. Steps are not divided: each rode in the whole step,
/// and nobody's rest is in none.
pub fn split(whole: &Share, weights: &[u64], rest: u64) -> (Vec<Share>, Share) {
    let all: u64 = weights.iter().sum::<u64>().saturating_add(rest);
    let mut before = 0;
    let mut parts = Vec::with_capacity(weights.len());
    for weight in weights {
        let after = before + weight;
        parts.push(part(whole, (before, after, all)));
        before = after;
    }
    // With no weights at all everything is the rest.
    let rest = part(whole, if all == 0 { (0, 1, 1) } else { (before, all, all) });
    (parts, Share { steps: 0, ..rest })
}

/// What lies between two marks on a scale of `all`: whole numbers, and neighbours leave no gap.
fn part(whole: &Share, (from, to, all): (u64, u64, u64)) -> Share {
    let upto = |value: u64, mark: u64| (u128::from(value) * u128::from(mark) / u128::from(all.max(1))) as u64;
    let of = |value: u64| upto(value, to) - upto(value, from);
    Share {
        steps: whole.steps,
        launches: of(whole.launches),
        copies: of(whole.copies),
        copy_bytes: of(whole.copy_bytes),
        gpu_lo_ns: of(whole.gpu_lo_ns),
        gpu_hi_ns: of(whole.gpu_hi_ns),
        gpu_ns: of(whole.gpu_ns),
        class: whole.class,
        energy_uj: of(whole.energy_uj),
        unpowered: whole.unpowered,
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimeClass;
    use super::*;
    use proptest::prelude::*;

    fn whole(launches: u64, gpu_ns: u64) -> Share {
        Share {
            steps: 1,
            launches,
            copies: 3,
            copy_bytes: 1_000_003,
            gpu_lo_ns: gpu_ns / 2,
            gpu_hi_ns: gpu_ns * 2,
            gpu_ns,
            class: TimeClass::Bounded,
            energy_uj: gpu_ns / 3 + 1,
            unpowered: false,
        }
    }

    proptest! {
        #[test]
        fn parts_and_rest_are_the_whole(
            launches in 0u64..100_000,
            gpu_ns in 0u64..10_000_000_000,
            weights in prop::collection::vec(0u64..5000, 0..300),
            rest in 0u64..5000,
        ) {
            let whole = whole(launches, gpu_ns);
            let (parts, left) = split(&whole, &weights, rest);
            let mut sum = left;
            parts.iter().for_each(|part| sum.add(part));
            prop_assert_eq!(Share { steps: 1, ..sum }, whole);
            prop_assert_eq!(parts.len(), weights.len());
            let all: u64 = weights.iter().sum::<u64>() + rest;
            for (part, weight) in parts.iter().zip(&weights) {
                let fair = u128::from(gpu_ns) * u128::from(*weight) / u128::from(all.max(1));
                prop_assert!(u128::from(part.gpu_ns).abs_diff(fair) <= 1);
            }
        }
    }

    #[test]
    fn where_nobody_rode_all_is_the_rest() {
        let (parts, rest) = split(&whole(7, 9), &[], 0);
        assert_eq!((parts.len(), rest.launches, rest.gpu_ns, rest.steps), (0, 7, 9, 0));
    }
}
