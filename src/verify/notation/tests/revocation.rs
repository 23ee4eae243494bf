//! Revocation lists: what is revoked, what is not, and what cannot be known.

use super::forge::*;
use super::*;

/// A chain whose signer names a revocation list.
fn chain() -> Chain {
    let leaf = Cert::leaf().with(|leaf| leaf.extensions.push(points("http://crl.example/sub.crl")));
    Chain::of(&leaf, &Cert::sub(), &Cert::root())
}

fn verdict_of(chain: &Chain, lists: &[Vec<u8>], now: Timestamp) -> Result<Verified, Fault> {
    let mut stores = chain.stores();
    for list in lists {
        stores.add_crl(list).unwrap();
    }
    verify(&chain.jws(&protected()).bytes(), JWS, &stores, now)
}

fn verdict(lists: &[Vec<u8>]) -> Result<Verified, Fault> {
    verdict_of(&chain(), lists, now())
}

/// Why revocation cannot be known, without the sentence around it.
fn unavailable(lists: &[Vec<u8>]) -> String {
    match verdict(lists).unwrap().revocation {
        Revocation::Unavailable(text) => text
            .strip_prefix("the certificate of 'CN=Leaf,O=Acme,ST=Berlin,C=DE' ")
            .and_then(|text| text.strip_suffix("; import a current revocation list of its issuer"))
            .unwrap()
            .to_owned(),
        other => panic!("{other:?}"),
    }
}

fn is_good(lists: &[Vec<u8>]) -> bool {
    matches!(verdict(lists).unwrap().revocation, Revocation::Good { .. })
}

fn is_revoked(lists: &[Vec<u8>]) -> bool {
    matches!(verdict(lists), Err(Fault::Revoked { subject, .. }) if subject.starts_with("CN=Leaf"))
}

fn freshest() -> Vec<u8> {
    let full_name = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[b"http://crl.example/delta.crl"])])]);
    extension("2.5.29.46", false, &seq(&[&seq(&[&full_name])]))
}

#[test]
fn a_current_list_of_the_issuer_decides() {
    let good = List::new(1, &[revoked(4, &[])]).signed(&SUB);
    let verified = verdict(std::slice::from_ref(&good)).unwrap();
    assert_eq!(
        verified.revocation,
        Revocation::Good {
            crls: vec![Digest::of(&good)]
        }
    );
    assert_eq!(verified.span.not_before, Some(at("2026-05-01T00:00:00Z")));
    assert_eq!(verified.span.not_after, Some(at("2026-07-01T00:00:00Z")));
    for code in [0, 1, 3, 4, 5, 6, 9, 10] {
        assert!(
            is_revoked(&[List::new(1, &[revoked(3, &[reason(code)])]).signed(&SUB)]),
            "{code}"
        );
    }
    assert!(is_revoked(&[List::new(
        1,
        &[revoked(2, &[]), revoked(3, &[]), revoked(4, &[])]
    )
    .signed(&SUB)]));
    // An authority's certificate is looked for like the signer's.
    let by_root = List::new(1, &[revoked(2, &[])])
        .with(|list| list.issuer = named("Root"))
        .signed(&ROOT);
    let fault = verdict(&[by_root, good]).unwrap_err();
    assert!(
        matches!(&fault, Fault::Revoked { subject, .. } if subject.starts_with("CN=Sub")),
        "{fault}"
    );
    assert_eq!(fault.code(), "notation-revoked");
}

#[test]
fn a_serial_number_is_compared_as_a_number_of_its_length() {
    // 0x03 is not 0x0003, 0x0300 or 0x83, and a serial with its highest bit set is found.
    let others = [revoked(0x0300, &[]), revoked(0x83, &[]), revoked(0x1_0003, &[])];
    assert!(is_good(&[List::new(1, &others).signed(&SUB)]));
    let leaf = Cert::leaf().with(|leaf| leaf.serial = 0xff00_0000_0000_0001);
    let chain = Chain::of(&leaf, &Cert::sub(), &Cert::root());
    let list = List::new(1, &[revoked(0xff00_0000_0000_0001, &[])]).signed(&SUB);
    assert_eq!(
        verdict_of(&chain, &[list], now()).unwrap_err().code(),
        "notation-revoked"
    );
}

#[test]
fn without_a_usable_list_nothing_is_known() {
    insta::assert_snapshot!(unavailable(&[]), @"names revocation lists, and the cache holds none of its issuer");
    let list = List::new(1, &[]);
    let others = list.clone().with(|list| list.issuer = named("Other")).signed(&SUB);
    insta::assert_snapshot!(unavailable(&[others]), @"names revocation lists, and the cache holds none of its issuer");
    insta::assert_snapshot!(unavailable(&[list.signed(&LEAF)]), @"has an issuer whose revocation list lacks a valid signature by it");
    let expired = list
        .clone()
        .with(|list| list.until = Some("260531235959Z"))
        .signed(&SUB);
    insta::assert_snapshot!(unavailable(&[expired]), @"has an issuer whose revocation list expired at 2026-05-31T23:59:59Z");
    let coming = list.clone().with(|list| list.from = "260601000001Z").signed(&SUB);
    insta::assert_snapshot!(unavailable(std::slice::from_ref(&coming)), @"has an issuer whose revocation list holds from 2026-06-01T00:00:01Z on");
    // The verdict ends where that list begins.
    let verified = verdict(&[coming]).unwrap();
    assert_eq!(verified.span.not_after, Some(at("2026-06-01T00:00:00.999999999Z")));
    // A forged list does not hide a genuine one.
    assert!(is_good(&[list.signed(&LEAF), list.signed(&SUB)]));
    assert!(is_revoked(&[
        list.signed(&LEAF),
        List::new(2, &[revoked(3, &[])]).signed(&SUB)
    ]));

    let sub = Cert::sub().with(|sub| sub.extensions[1] = key_usage(KEY_CERT_SIGN, true));
    let leaf = Cert::leaf().with(|leaf| leaf.extensions.push(points("http://crl.example/sub.crl")));
    let verified = verdict_of(&Chain::of(&leaf, &sub, &Cert::root()), &[list.signed(&SUB)], now()).unwrap();
    assert!(matches!(verified.revocation, Revocation::Unavailable(text) if text.contains("must not sign")));
}

#[test]
fn a_certificate_that_offers_ocsp_only() {
    let access = seq(&[&seq(&[
        &oid("1.3.6.1.5.5.7.48.1"),
        &tlv(0x86, &[b"http://ocsp.example"]),
    ])]);
    let leaf = Cert::leaf().with(|leaf| leaf.extensions.push(extension("1.3.6.1.5.5.7.1.1", false, &access)));
    let chain = Chain::of(&leaf, &Cert::sub(), &Cert::root());
    let revocation = verdict_of(&chain, &[], now()).unwrap().revocation;
    insta::assert_debug_snapshot!(revocation, @r#"
    Unavailable(
        "the certificate of 'CN=Leaf,O=Acme,ST=Berlin,C=DE' offers OCSP only, which needs a network; import a current revocation list of its issuer",
    )
    "#);
    // A list that is there anyway is as good.
    let list = List::new(1, &[]).signed(&SUB);
    assert!(matches!(
        verdict_of(&chain, &[list], now()).unwrap().revocation,
        Revocation::Good { .. }
    ));
}

#[test]
fn a_revocation_for_good_is_believed_from_every_list() {
    let revoking = List::new(1, &[revoked(3, &[])]);
    let good = List::new(2, &[]).signed(&SUB);
    assert!(is_revoked(&[good.clone(), revoking.signed(&SUB)]));
    let expired = revoking
        .clone()
        .with(|list| list.until = Some("260502000000Z"))
        .signed(&SUB);
    assert!(is_revoked(&[expired.clone(), good.clone()]));
    assert!(is_revoked(&[expired]));
    let coming = revoking.with(|list| list.from = "260602000000Z").signed(&SUB);
    assert!(is_revoked(&[good.clone(), coming]));
    // A hold is what the newest list says.
    let held = List::new(1, &[revoked(3, &[reason(6)])]).signed(&SUB);
    assert!(is_good(&[good, held.clone()]));
    let newer = List::new(256, &[revoked(3, &[reason(6)])]).signed(&SUB);
    assert!(is_revoked(&[List::new(255, &[]).signed(&SUB), newer]));
    assert!(is_revoked(&[held]));
}

#[test]
fn deltas_follow_their_base() {
    let base = List::new(5, &[])
        .with(|list| list.extensions.push(freshest()))
        .signed(&SUB);
    insta::assert_snapshot!(unavailable(std::slice::from_ref(&base)), @"needs a delta of the revocation list, and the cache holds none that fits");
    let delta = List::delta(7, 5, &[]);
    assert!(is_good(&[base.clone(), delta.signed(&SUB)]));
    assert!(is_good(&[base.clone(), List::delta(5, 4, &[]).signed(&SUB)]));
    // Made for a newer base, older than the base, expired, or of another scope.
    for unfit in [
        List::delta(7, 6, &[]),
        List::delta(4, 3, &[]),
        delta.clone().with(|list| list.until = Some("260531000000Z")),
        delta
            .clone()
            .with(|list| list.extensions.push(scope(&[&tlv(0x81, &[&[0xff]])]))),
    ] {
        let text = unavailable(&[base.clone(), unfit.signed(&SUB)]);
        assert!(text.starts_with("needs a delta"), "{text}");
    }
    // A delta alone is no list.
    insta::assert_snapshot!(unavailable(&[delta.signed(&SUB)]), @"has an issuer whose revocation lists in the cache are about other certificates");
    // What it adds and removes.
    assert!(is_revoked(&[
        base.clone(),
        List::delta(7, 5, &[revoked(3, &[])]).signed(&SUB)
    ]));
    assert!(is_revoked(&[
        base.clone(),
        List::delta(7, 5, &[revoked(3, &[reason(6)])]).signed(&SUB)
    ]));
    let held = List::new(5, &[revoked(3, &[reason(6)])])
        .with(|list| list.extensions.push(freshest()))
        .signed(&SUB);
    assert!(is_revoked(std::slice::from_ref(&held)));
    assert!(is_revoked(&[held.clone(), delta.signed(&SUB)]));
    let removal = List::delta(7, 5, &[revoked(3, &[reason(8)])]).signed(&SUB);
    let verified = verdict(&[held, removal.clone()]).unwrap();
    assert!(matches!(verified.revocation, Revocation::Good { crls } if crls.len() == 2));
    // Only a hold can be removed.
    let for_good = List::new(5, &[revoked(3, &[reason(1)])]).signed(&SUB);
    assert!(is_revoked(&[for_good, removal]));
    // The certificate itself may ask for a delta.
    let leaf = Cert::leaf().with(|leaf| leaf.extensions.push(freshest()));
    let chain = Chain::of(&leaf, &Cert::sub(), &Cert::root());
    let plain = List::new(5, &[]).signed(&SUB);
    let verified = verdict_of(&chain, std::slice::from_ref(&plain), now()).unwrap();
    assert!(matches!(verified.revocation, Revocation::Unavailable(_)));
    let verified = verdict_of(&chain, &[plain, delta.signed(&SUB)], now()).unwrap();
    assert!(matches!(verified.revocation, Revocation::Good { .. }));
}

#[test]
fn a_list_about_other_certificates_says_nothing_good() {
    let list = |fields: &[&[u8]]| {
        List::new(1, &[])
            .with(|list| list.extensions.push(scope(fields)))
            .signed(&SUB)
    };
    let yes: &[u8] = &[0xff];
    let at_uri = |uri: &str| tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[uri.as_bytes()])])]);
    assert!(is_good(&[list(&[&tlv(0x81, &[yes])])]));
    assert!(is_good(&[list(&[&at_uri("http://crl.example/sub.crl")])]));
    for fields in [
        tlv(0x82, &[yes]),
        tlv(0x85, &[yes]),
        // For some reasons only.
        tlv(0x83, &[&[6, 0x40]]),
        at_uri("http://crl.example/other.crl"),
    ] {
        let text = unavailable(&[list(&[&fields])]);
        assert!(text.ends_with("are about other certificates"), "{text}");
    }
}

#[test]
fn a_key_that_was_lost_later_does_not_undo_a_signature_with_a_timestamp() {
    let list = |since: &str| List::new(1, &[revoked(3, &[reason(1), invalid_since(since)])]).signed(&SUB);
    let stamped = |list: &[u8]| {
        let chain = chain();
        let mut stores = chain.stores();
        stores.add_crl(list).unwrap();
        let jws = chain.jws(&protected());
        let token = Token::new(&jws.signature, "20260502000000Z").signed(&STAMP);
        verify(&jws.stamped(&token), JWS, &stores, now()).map(|verified| verified.revocation)
    };
    let later = list("20260502000002Z");
    assert_eq!(
        stamped(&later),
        Ok(Revocation::Good {
            crls: vec![Digest::of(&later)]
        })
    );
    // Within the accuracy of the timestamp, before it, not said, or not stamped.
    for undone in [
        list("20260502000001Z"),
        list("20260401000000Z"),
        List::new(1, &[revoked(3, &[reason(1)])]).signed(&SUB),
    ] {
        assert_eq!(stamped(&undone).unwrap_err().code(), "notation-revoked");
    }
    assert!(is_revoked(&[later]));
}

#[test]
fn a_timestamp_authority_can_be_revoked_and_cannot_vouch_for_itself() {
    let entry = revoked(5, &[reason(1), invalid_since("20260503000000Z")]);
    let list = List::new(1, &[entry])
        .with(|list| list.issuer = named("Time"))
        .signed(&TSA);
    let chain = Chain::new();
    let mut stores = chain.stores();
    stores.add_crl(&list).unwrap();
    let jws = chain.jws(&protected());
    let token = Token::new(&jws.signature, "20260502000000Z").signed(&STAMP);
    let fault = verify(&jws.stamped(&token), JWS, &stores, now()).unwrap_err();
    assert!(
        matches!(&fault, Fault::Revoked { subject, .. } if subject.starts_with("CN=Stamp")),
        "{fault}"
    );
}

#[test]
fn lists_that_are_not_understood_are_refused_when_they_are_read() {
    let refused = |list: List| {
        let mut stores = TrustStores::default();
        stores.add_crl(&list.signed(&SUB)).unwrap_err().to_string()
    };
    let list = List::new(1, &[]);
    insta::assert_snapshot!(refused(list.clone().with(|list| list.until = None)), @"it is not a revocation list that can be used: it has no time of its next update");
    insta::assert_snapshot!(refused(list.clone().with(|list| list.extensions.push(extension("1.2.3.4", true, &[5, 0])))), @"it is not a revocation list that can be used: it has the critical extension 1.2.3.4, which is not supported");
    insta::assert_snapshot!(refused(list.clone().with(|list| list.extensions.push(scope(&[&tlv(0x84, &[&[0xff]])])))), @"it is not a revocation list that can be used: it is an indirect list, which is not supported");
    let foreign = revoked(9, &[extension("2.5.29.29", true, &seq(&[]))]);
    insta::assert_snapshot!(refused(List::new(1, &[foreign])), @"it is not a revocation list that can be used: it has the critical extension 2.5.29.29, which is not supported");
    assert!(refused(List::new(1, &[revoked(9, &[reason(8)])])).contains("not a delta"));
    assert!(
        refused(
            list.clone()
                .with(|list| list.extensions.push(list.extensions[0].clone()))
        )
        .contains("malformed")
    );
    let mut stores = TrustStores::default();
    assert!(matches!(
        stores.add_crl(&vec![0x30; MAX_CRL + 1]),
        Err(StoreError::Crl(CrlError::TooLarge(_)))
    ));
    stores.add_crl(&list.signed(&SUB)).unwrap();
}
