//! What notation wrote, and everything that must not count.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod attacks;
mod forge;
mod revocation;

use forge::{Cert, Chain, at};

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/notation"));
    std::fs::read(folder.join(name)).unwrap()
}

fn recorded_at() -> Timestamp {
    String::from_utf8(fixture("recorded.time"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn media_type(name: &str) -> &'static str {
    if name.ends_with(".jws") { JWS } else { COSE }
}

/// The recorded roots.
fn recorded_stores() -> TrustStores {
    let mut stores = TrustStores::default();
    stores
        .add_certificates(StoreKind::Ca, "acme", &fixture("ca.pem"))
        .unwrap();
    stores
        .add_certificates(StoreKind::Ca, "alone", &fixture("alone.pem"))
        .unwrap();
    stores
        .add_certificates(StoreKind::Tsa, "clock", &fixture("tsa.pem"))
        .unwrap();
    stores
}

fn distinguished(text: &str) -> Result<DistinguishedName, InvalidName> {
    text.to_owned().try_into()
}

fn verify_fixture(name: &str, stores: &TrustStores, now: Timestamp) -> Result<Verified, Fault> {
    verify(&fixture(name), media_type(name), stores, now)
}

#[test]
fn every_kind_of_key_that_notation_signs_with_verifies_in_both_forms() {
    let stores = recorded_stores();
    let digest = String::from_utf8(fixture("manifest.digest")).unwrap();
    let size: u64 = String::from_utf8(fixture("manifest.size"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for kind in ["rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521"] {
        for form in ["jws", "cose"] {
            let name = format!("{kind}.{form}");
            let verified =
                verify_fixture(&name, &stores, recorded_at()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            assert_eq!(verified.target.digest.to_string(), digest.trim());
            assert_eq!(verified.target.size, size);
            assert_eq!(verified.target.media_type, crate::oci::MANIFEST);
            assert_eq!(
                verified.identity.to_string(),
                format!("CN=Signer {kind},OU=Build,O=Acme\\, Inc,ST=Berlin,C=DE")
            );
            assert_eq!(verified.trust_stores, ["acme"]);
            assert_eq!(verified.scheme, Scheme::X509);
            assert_eq!(verified.chain.len(), 3);
            assert_eq!(verified.trusted_time, None);
            assert!(matches!(verified.revocation, Revocation::Unavailable(_)));
            let acme = distinguished("C=DE, ST=Berlin, O=Acme\\, Inc, OU=Build").unwrap();
            assert!(acme.matches(&verified.identity.to_string()));
            // Without a timestamp the chain must hold now; the root was made a moment before the signer.
            let fault = verify_fixture(&name, &stores, at("2036-11-30T00:00:00Z")).unwrap_err();
            assert_eq!(fault.code(), "notation-certificate-time", "{fault}");
        }
    }
}

#[test]
fn a_self_signed_signer_is_its_own_root() {
    for name in ["alone.jws", "alone.cose"] {
        let verified = verify_fixture(name, &recorded_stores(), recorded_at()).unwrap();
        assert_eq!(verified.chain.len(), 1);
        assert_eq!(verified.trust_stores, ["alone"]);
        assert_eq!(verified.revocation, Revocation::NotOffered);
    }
}

#[test]
fn a_timestamp_by_a_trusted_authority_outlives_the_certificates() {
    let stores = recorded_stores();
    for name in ["timestamped.jws", "timestamped.cose"] {
        for now in [recorded_at(), at("2060-01-01T00:00:00Z")] {
            let verified = verify_fixture(name, &stores, now).unwrap();
            let time = verified.trusted_time.unwrap();
            let accuracy = time.latest.duration_since(time.earliest);
            assert_eq!(accuracy.as_millis(), 3000);
            let authority = time.authority.unwrap();
            assert_eq!(authority.trust_stores, ["clock"]);
            assert_eq!(authority.chain.len(), 2);
            assert_eq!(authority.revocation, Revocation::NotOffered);
            assert_eq!(verified.span.not_after, Some(Timestamp::MAX));
            assert_eq!(verified.span.not_before, Some(time.earliest));
        }
    }
}

#[test]
fn a_timestamp_where_no_authority_is_trusted_is_as_good_as_none() {
    let mut stores = TrustStores::default();
    stores
        .add_certificates(StoreKind::Ca, "acme", &fixture("ca.pem"))
        .unwrap();
    let verified = verify_fixture("timestamped.jws", &stores, recorded_at()).unwrap();
    assert_eq!(verified.trusted_time, None);
    let fault = verify_fixture("timestamped.jws", &stores, at("2060-01-01T00:00:00Z")).unwrap_err();
    assert_eq!(fault.code(), "notation-certificate-time");
}

#[test]
fn what_a_signer_says_besides_is_read_from_what_is_signed() {
    let stores = recorded_stores();
    for form in ["jws", "cose"] {
        let verified = verify_fixture(&format!("annotated.{form}"), &stores, recorded_at()).unwrap();
        assert_eq!(verified.target.annotations["build"], "17");

        let name = format!("expiring.{form}");
        let verified = verify_fixture(&name, &stores, recorded_at()).unwrap();
        let expiry = verified.expiry.unwrap();
        let last = verified.span.not_after.unwrap();
        assert_eq!(last, expiry - jiff::SignedDuration::from_nanos(1));
        assert_eq!(verify_fixture(&name, &stores, last).unwrap(), verified);
        let fault = verify_fixture(&name, &stores, expiry).unwrap_err();
        assert_eq!(fault, Fault::Expired(expiry));
    }
}

#[test]
fn the_lists_that_openssl_wrote_are_understood() {
    let with = |lists: &[&str]| {
        let mut stores = recorded_stores();
        for list in lists {
            stores.add_crl(&fixture(&format!("{list}.crl"))).unwrap();
        }
        verify_fixture("p256.jws", &stores, recorded_at())
    };
    let digest = |list: &str| {
        let pem = String::from_utf8(fixture(&format!("{list}.crl"))).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Digest::of(&BASE64_STANDARD.decode(body).unwrap())
    };
    assert_eq!(
        with(&["good"]).unwrap().revocation,
        Revocation::Good {
            crls: vec![digest("good")]
        }
    );
    let fault = with(&["good", "revoked"]).unwrap_err();
    assert_eq!(fault.code(), "notation-revoked");
    assert!(fault.to_string().contains(&digest("revoked").to_string()), "{fault}");
    assert_eq!(with(&["hold"]).unwrap_err().code(), "notation-revoked");
    let mut both = vec![digest("hold"), digest("delta")];
    both.sort();
    assert_eq!(
        with(&["hold", "delta"]).unwrap().revocation,
        Revocation::Good { crls: both }
    );
}

#[test]
fn files_of_trust_stores_are_read_strictly() {
    let add = |file: &[u8]| TrustStores::default().add_certificates(StoreKind::Ca, "x", file);
    assert_eq!(add(b""), Err(StoreError::Empty));
    assert_eq!(
        add(b"no certificate").unwrap_err().to_string(),
        "it cannot be read: it is neither PEM nor DER"
    );
    let pem = String::from_utf8(fixture("ca.pem")).unwrap();
    add(pem.as_bytes()).unwrap();
    add(format!("Root\n{pem}\n{pem}").as_bytes()).unwrap();
    add(&Cert::root().signed(&forge::ROOT)).unwrap();
    let key = pem.replace("CERTIFICATE", "PRIVATE KEY");
    assert_eq!(
        add(key.as_bytes()),
        Err(StoreError::Pem("PRIVATE KEY".to_owned(), "CERTIFICATE"))
    );
    assert!(matches!(
        add(pem.replace('M', "!").as_bytes()),
        Err(StoreError::Broken(_))
    ));
    assert!(matches!(add(&pem.as_bytes()[..400]), Err(StoreError::Broken(_))));
    assert_eq!(
        add(&vec![b'x'; MAX_STORE_FILE + 1]),
        Err(StoreError::TooLarge(MAX_STORE_FILE + 1))
    );
    assert_eq!(add(&Cert::sub().signed(&forge::ROOT)), Err(StoreError::NotRoot(1)));
    let mut stores = TrustStores::default();
    assert!(matches!(stores.add_crl(pem.as_bytes()), Err(StoreError::Pem(..))));
    assert!(matches!(stores.add_crl(b"\x30\x00"), Err(StoreError::Crl(_))));
    assert!(matches!(stores.add_crl(b""), Err(StoreError::Broken(_))));
}

#[test]
fn a_policy_names_a_part_of_the_subject() {
    let subject = |attributes: &[(&str, &str)]| {
        use x509_cert::der::Decode as _;
        Subject::new(&x509_cert::name::Name::from_der(&forge::name(attributes)).unwrap())
    };
    let acme = [
        ("2.5.4.6", "DE"),
        ("2.5.4.8", "Berlin"),
        ("2.5.4.10", "Acme, Inc "),
        ("2.5.4.3", "Leaf"),
    ];
    let matches = |identity: &str, attributes: &[(&str, &str)]| {
        distinguished(identity)
            .unwrap()
            .matches(&subject(attributes).to_string())
    };
    assert!(matches("C=DE, ST=Berlin, O=Acme\\, Inc\\ ", &acme));
    assert!(matches("CN=Leaf, O=Acme\\, Inc\\ , ST=Berlin, C=DE", &acme));
    for other in [
        "C=DE, ST=Berlin, O=Acme\\, Inc",
        "C=DE, ST=berlin, O=Acme\\, Inc\\ ",
        "C=DE, ST=Berlin, O=Acme\\, Inc\\ , CN=Lea",
        "C=DE, ST=Berlin, O=Acme\\, Inc\\ , OU=Build",
    ] {
        assert!(!matches(other, &acme), "{other}");
    }
    // A subject that names an attribute twice is nobody's: which of them counts would depend on the reader.
    let mut twice = acme.to_vec();
    twice.push(("2.5.4.10", "Evil"));
    assert!(!matches("C=DE, ST=Berlin, O=Acme\\, Inc\\ ", &twice));
    assert_eq!(subject(&acme).to_string(), "CN=Leaf,O=Acme\\, Inc\\ ,ST=Berlin,C=DE");
}

/// What may differ between two verdicts that say the same.
fn content(verified: &Verified) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        verified.target.clone(),
        verified.identity.clone(),
        verified.scheme,
        verified.signing_time,
        verified.expiry,
        verified.chain.clone(),
        verified.trust_stores.clone(),
        verified.trusted_time.as_ref().map(|time| (time.earliest, time.latest)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_byte_of_an_envelope_can_be_changed_to_say_something_else(
        name in prop::sample::select(vec!["p256.jws", "p256.cose", "rsa2048.cose", "timestamped.jws", "timestamped.cose", "expiring.cose"]),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let stores = recorded_stores();
        let mut bytes = fixture(name);
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(verified) = verify(&bytes, media_type(name), &stores, recorded_at()) {
            let genuine = verify_fixture(name, &stores, recorded_at()).unwrap();
            prop_assert_eq!(content(&verified), content(&genuine));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let stores = TrustStores::default();
        for media_type in [JWS, COSE] {
            prop_assert!(verify(&bytes, media_type, &stores, Timestamp::UNIX_EPOCH).is_err());
        }
        let mut stores = TrustStores::default();
        let _ = stores.add_certificates(StoreKind::Ca, "x", &bytes);
        let _ = stores.add_crl(&bytes);
    }

    #[test]
    fn a_damaged_revocation_list_never_makes_a_revoked_certificate_good(place in any::<prop::sample::Index>(), value in any::<u8>()) {
        let list = forge::List::new(1, &[forge::revoked(3, &[])]).signed(&forge::SUB);
        let mut bytes = list.clone();
        let place = place.index(bytes.len());
        bytes[place] = value;
        let chain = Chain::new();
        let mut stores = chain.stores();
        if stores.add_crl(&bytes).is_ok() && bytes != list {
            let verdict = verify(&chain.jws(&forge::protected()).bytes(), JWS, &stores, forge::now());
            if let Ok(verified) = verdict {
                let good = matches!(verified.revocation, Revocation::Good { .. });
                prop_assert!(!good);
            }
        }
    }

    #[test]
    fn identities_are_parsed_without_a_panic_and_match_what_they_name(values in prop::collection::vec("[ -~é]{1,12}", 3)) {
        let attributes = [("2.5.4.6", values[0].as_str()), ("2.5.4.8", values[1].as_str()), ("2.5.4.10", values[2].as_str())];
        use x509_cert::der::Decode as _;
        let subject = Subject::new(&x509_cert::name::Name::from_der(&forge::name(&attributes)).unwrap());
        let escaped = |value: &String| -> String { value.bytes().map(|byte| format!("\\{byte:02x}")).collect() };
        let text = format!("C={}, ST={}, O={}", escaped(&values[0]), escaped(&values[1]), escaped(&values[2]));
        prop_assert!(distinguished(&text).unwrap().matches(&subject.to_string()));
        let _ = distinguished(&values.concat());
    }
}

/// The envelope of a fixture as JSON.
fn parsed(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

#[test]
fn an_envelope_is_read_in_one_way_only() {
    let stores = recorded_stores();
    let refused = |bytes: &[u8], media_type: &str| verify(bytes, media_type, &stores, recorded_at()).unwrap_err();
    let jws = fixture("p256.jws");
    let text = String::from_utf8(jws.clone()).unwrap();
    let codes = |bytes: &[u8]| refused(bytes, JWS).code();
    assert_eq!(
        codes(text.replacen('{', r#"{"payload":"","#, 1).as_bytes()),
        "notation-malformed"
    );
    assert_eq!(codes(format!("{text}{{}}").as_bytes()), "notation-malformed");
    assert_eq!(
        codes(text.replacen('{', r#"{"extra":1,"#, 1).as_bytes()),
        "notation-malformed"
    );
    assert_eq!(
        codes(text.replacen(r#""x5c""#, r#""alg":"none","x5c""#, 1).as_bytes()),
        "notation-malformed"
    );
    assert_eq!(codes(&fixture("p256.cose")), "notation-malformed");
    assert_eq!(codes(&vec![b' '; MAX_ENVELOPE + 1]), "notation-too-large");
    assert_eq!(refused(&jws, "application/json").code(), "notation-media-type");
    // Base64 with padding or in another alphabet.
    for field in ["payload", "protected", "signature"] {
        let mut padded = parsed("p256.jws");
        padded[field] = format!("{}=", padded[field].as_str().unwrap()).into();
        assert_eq!(codes(padded.to_string().as_bytes()), "notation-malformed");
    }
    // A header with a key twice, of which another reader could take the other.
    let mut twice = parsed("p256.jws");
    let header = BASE64_URL_SAFE_NO_PAD
        .decode(twice["protected"].as_str().unwrap())
        .unwrap();
    let header = String::from_utf8(header).unwrap().replacen('{', r#"{"alg":"none","#, 1);
    twice["protected"] = BASE64_URL_SAFE_NO_PAD.encode(header).into();
    assert_eq!(codes(twice.to_string().as_bytes()), "notation-malformed");

    let cose = fixture("p256.cose");
    let codes = |bytes: &[u8]| refused(bytes, COSE).code();
    assert_eq!(codes(&[cose.as_slice(), b"\0"].concat()), "notation-malformed");
    assert_eq!(codes(&cose[1..]), "notation-malformed");
    assert_eq!(codes(&jws), "notation-malformed");
    assert_eq!(codes(&[0x81; 100_000]), "notation-malformed");
    assert_eq!(
        codes(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "notation-malformed"
    );
    assert_eq!(
        codes(&[0xd2, 0x84, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "notation-malformed"
    );
}

#[test]
fn times_are_written_as_the_form_says() {
    let chain = Chain::new();
    let verdict = |time: Value| {
        let mut protected = forge::protected();
        protected["io.cncf.notary.signingTime"] = time;
        verify(&chain.jws(&protected).bytes(), JWS, &chain.stores(), forge::now()).map(|verified| verified.signing_time)
    };
    assert_eq!(
        verdict(json!("2026-05-01T02:00:00.5+02:00")),
        Ok(at("2026-05-01T00:00:00.5Z"))
    );
    for wrong in [
        json!("2026-05-01 00:00:00Z"),
        json!("2026-05-01T00:00:00"),
        json!(1),
        json!("2026-05-01T00:00:00Z[UTC]"),
        json!(null),
    ] {
        assert_eq!(
            verdict(wrong.clone()).unwrap_err().code(),
            "notation-malformed",
            "{wrong}"
        );
    }
}

/// A change to a recorded envelope, and what notation said to it; see `verdicts.py` there.
#[derive(serde::Deserialize)]
struct Recorded {
    file: String,
    at: Option<usize>,
    byte: Option<u8>,
    find: Option<String>,
    replace: Option<String>,
    accepted: bool,
}

#[test]
fn nothing_counts_that_notation_refuses() {
    let stores = recorded_stores();
    let lines = String::from_utf8(fixture("verdicts.jsonl")).unwrap();
    let (mut counted, mut stricter) = (0, 0);
    for line in lines.lines() {
        let recorded: Recorded = serde_json::from_str(line).unwrap();
        let mut bytes = fixture(&recorded.file);
        match (recorded.at, recorded.byte, recorded.find, recorded.replace) {
            (Some(at), Some(byte), ..) => bytes[at] = byte,
            (_, _, Some(find), Some(replace)) if !find.is_empty() => {
                bytes = String::from_utf8(bytes)
                    .unwrap()
                    .replacen(&find, &replace, 1)
                    .into_bytes();
            }
            _ => {}
        }
        match verify(&bytes, media_type(&recorded.file), &stores, recorded_at()) {
            Ok(_) => {
                assert!(recorded.accepted, "{line}");
                counted += 1;
            }
            // Of what notation accepts, only envelopes that could be read in two ways are refused.
            Err(fault) if recorded.accepted => {
                assert_eq!(fault.code(), "notation-malformed", "{line}");
                stricter += 1;
            }
            Err(_) => {}
        }
    }
    assert!(counted >= 8 && stricter >= 8, "{counted} {stricter}");
}
