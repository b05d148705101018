//! TLSA records and chains, in the language of the fuzz target `tlsa`: known certificates in any
//! order, changed or not, with records of each kind.

use proptest::collection::vec;
use proptest::prelude::*;
use support::fuzz;

fn item() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (2..=3u8, 0..=1u8, 0..=2u8, 0..8u8)
            .prop_map(|(usage, selector, matching, of)| vec![b'k', usage, selector, matching, of]),
        1 => vec(any::<u8>(), 4..5).prop_map(|fields| [&b"k"[..], &fields].concat()),
        6 => (0..8u8).prop_map(|known| vec![b'c', known]),
        1 => (0..8u8, any::<[u8; 3]>())
            .prop_map(|(known, change)| [&[b'x', known][..], &change].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_chain_is_accepted_for_a_record_alone(items in vec(item(), 0..8)) {
        fuzz::check("tlsa")(&items.concat());
    }
}
