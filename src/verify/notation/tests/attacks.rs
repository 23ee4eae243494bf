//! Envelopes, chains and timestamps that must not count, each refused with its own code.

use std::time::{Duration, Instant};

use coset::cbor::value::Value as Cbor;
use coset::{Header, HeaderBuilder, RegisteredLabelWithPrivate, iana};

use super::forge::*;
use super::*;

fn code_of(bytes: &[u8], media_type: &str, stores: &TrustStores, now: Timestamp) -> &'static str {
    match verify(bytes, media_type, stores, now) {
        Ok(verified) => panic!("counted: {verified:?}"),
        Err(fault) => fault.code(),
    }
}

/// The code for a chain that is otherwise all right and trusted.
fn chain_code(chain: &Chain) -> &'static str {
    code_of(&chain.jws(&protected()).bytes(), JWS, &chain.stores(), now())
}

fn leaf_code(change: impl FnOnce(&mut Cert)) -> &'static str {
    chain_code(&Chain::of(&Cert::leaf().with(change), &Cert::sub(), &Cert::root()))
}

fn sub_code(change: impl FnOnce(&mut Cert)) -> &'static str {
    chain_code(&Chain::of(&Cert::leaf(), &Cert::sub().with(change), &Cert::root()))
}

#[test]
fn the_forger_makes_what_counts() {
    let chain = Chain::new();
    let stores = chain.stores();
    let jws = chain.jws(&protected());
    let verified = verify(&jws.bytes(), JWS, &stores, now()).unwrap();
    assert_eq!(verified.trust_stores, ["acme"]);
    assert_eq!(verified.revocation, Revocation::NotOffered);
    assert_eq!(verified.span.not_before, Some(at("2026-01-01T00:00:00Z")));
    assert_eq!(verified.span.not_after, Some(at("2027-01-01T00:00:00Z")));
    verify(&chain.cose(cose_protected().build()), COSE, &stores, now()).unwrap();
    let token = Token::new(&jws.signature, "20260502000000Z").signed(&STAMP);
    let verified = verify(&jws.stamped(&token), JWS, &stores, at("2030-01-01T00:00:00Z")).unwrap();
    let time = verified.trusted_time.unwrap();
    assert_eq!(
        (time.earliest, time.latest),
        (at("2026-05-01T23:59:59Z"), at("2026-05-02T00:00:01Z"))
    );
}

#[test]
fn a_signing_authority_vouches_for_its_time_in_both_forms() {
    let chain = Chain::new();
    let mut stores = TrustStores::default();
    stores
        .add_certificates(StoreKind::SigningAuthority, "acme", &chain.0[2])
        .unwrap();
    let text = |name: &str| RegisteredLabelWithPrivate::Text(name.to_owned());
    let header = HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .content_type(CTY.to_owned())
        .add_critical_label(text("io.cncf.notary.signingScheme"))
        .add_critical_label(text("io.cncf.notary.authenticSigningTime"))
        .text_value(
            "io.cncf.notary.signingScheme".to_owned(),
            "notary.x509.signingAuthority".into(),
        )
        .text_value(
            "io.cncf.notary.authenticSigningTime".to_owned(),
            Cbor::Tag(1, Box::new(1_777_593_600_i64.into())),
        )
        .build();
    let jws = chain.jws(&authority_protected("2026-05-01T00:00:00Z")).bytes();
    for (bytes, media_type) in [(jws, JWS), (chain.cose(header), COSE)] {
        // Long after the certificates expired.
        let verified = verify(&bytes, media_type, &stores, at("2040-01-01T00:00:00Z")).unwrap();
        assert_eq!(verified.scheme, Scheme::SigningAuthority);
        let time = verified.trusted_time.unwrap();
        assert_eq!(
            (time.earliest, time.latest),
            (at("2026-05-01T00:00:00Z"), at("2026-05-01T00:00:00Z"))
        );
        assert_eq!(time.authority, None);
    }
}

#[test]
fn a_chain_to_a_root_that_is_not_trusted() {
    let chain = Chain::new();
    let jws = chain.jws(&protected()).bytes();
    // Another root of the same name, and the own root as a timestamp or signing authority only.
    let mut foreign = TrustStores::default();
    let root = Cert::root().with(|root| root.spki = TSA.spki.clone()).signed(&TSA);
    foreign.add_certificates(StoreKind::Ca, "acme", &root).unwrap();
    for kind in [StoreKind::Tsa, StoreKind::SigningAuthority] {
        foreign.add_certificates(kind, "acme", &chain.0[2]).unwrap();
    }
    assert_eq!(code_of(&jws, JWS, &foreign, now()), "notation-root-untrusted");
    assert_eq!(
        code_of(&jws, JWS, &TrustStores::default(), now()),
        "notation-root-untrusted"
    );
    // A signing authority's signature under a root for others.
    let authority = chain.jws(&authority_protected("2026-05-01T00:00:00Z")).bytes();
    assert_eq!(
        code_of(&authority, JWS, &chain.stores(), now()),
        "notation-root-untrusted"
    );
    verify(&authority, JWS, &foreign, now()).unwrap();
}

#[test]
fn a_chain_that_is_not_one() {
    let Chain(chain) = Chain::new();
    let [leaf, sub, root] = chain.as_slice() else { panic!() };
    let code = |certificates: &[&Vec<u8>]| {
        let bytes = Chain(certificates.iter().map(|der| (*der).clone()).collect())
            .jws(&protected())
            .bytes();
        code_of(&bytes, JWS, &Chain::new().stores(), now())
    };
    assert_eq!(code(&[]), "notation-chain-length");
    assert_eq!(code(&[leaf, sub]), "notation-chain-broken");
    assert_eq!(code(&[leaf, root]), "notation-chain-broken");
    assert_eq!(code(&[leaf, root, sub]), "notation-chain-broken");
    assert_eq!(code(&[leaf, sub, root, root]), "notation-chain-broken");
    assert_eq!(code(&[leaf, sub, sub, root]), "notation-chain-broken");
    assert_eq!(code(&[leaf]), "notation-chain-broken");
    // Signed by the leaf's key, but the first certificate is another's.
    assert_eq!(code(&[sub, root]), "notation-signature-invalid");
    // An authority with the right name and another key, and with the right key and another name.
    let impostor = Cert::sub().with(|sub| sub.spki = TSA.spki.clone()).signed(&ROOT);
    assert_eq!(code(&[leaf, &impostor, root]), "notation-chain-broken");
    let renamed = Cert::sub().with(|sub| sub.subject = named("Other")).signed(&ROOT);
    assert_eq!(code(&[leaf, &renamed, root]), "notation-chain-broken");
    // More certificates than any chain has.
    let many: Vec<&Vec<u8>> = std::iter::repeat_n(leaf, MAX_CHAIN + 1).collect();
    assert_eq!(code(&many), "notation-chain-length");
    assert_eq!(
        code_of(
            &Chain(vec![leaf.clone(); MAX_CHAIN + 1]).cose(cose_protected().build()),
            COSE,
            &TrustStores::default(),
            now()
        ),
        "notation-chain-length"
    );
}

#[test]
fn an_authority_signs_or_a_signer_issues() {
    assert_eq!(
        leaf_code(|leaf| leaf.extensions.push(authority(None))),
        "notation-certificate-usage"
    );
    // What issued is no authority, is not marked critical, or may not issue.
    assert_eq!(
        sub_code(|sub| sub.extensions.retain(|it| *it != authority(Some(0)))),
        "notation-certificate-usage"
    );
    assert_eq!(
        sub_code(|sub| sub.extensions[0] = extension("2.5.29.19", false, &seq(&[&[1, 1, 0xff]]))),
        "notation-certificate-usage"
    );
    assert_eq!(
        sub_code(|sub| sub.extensions[0] = extension("2.5.29.19", true, &seq(&[]))),
        "notation-certificate-usage"
    );
    assert_eq!(
        sub_code(|sub| sub.extensions[1] = key_usage(CRL_SIGN, true)),
        "notation-certificate-usage"
    );
    assert_eq!(
        sub_code(|sub| sub.extensions[1] = key_usage(KEY_CERT_SIGN, false)),
        "notation-certificate-usage"
    );
    assert_eq!(sub_code(|sub| drop(sub.extensions.pop())), "notation-certificate-usage");
    // An authority for web servers.
    assert_eq!(
        sub_code(|sub| sub.extensions.push(usages(false, &["1.3.6.1.5.5.7.3.1"]))),
        "notation-certificate-usage"
    );
}

#[test]
fn more_authorities_than_the_path_length_allows() {
    let leaf = Cert::leaf().with(|leaf| leaf.issuer = named("Low"));
    let low = Cert::sub().with(|low| {
        low.subject = named("Low");
        low.issuer = named("Sub");
    });
    let chain = |sub: Cert| {
        Chain(vec![
            leaf.signed(&SUB),
            low.signed(&SUB),
            sub.signed(&ROOT),
            Cert::root().signed(&ROOT),
        ])
    };
    let code = |sub| {
        code_of(
            &chain(sub).jws(&protected()).bytes(),
            JWS,
            &Chain::new().stores(),
            now(),
        )
    };
    assert_eq!(code(Cert::sub()), "notation-path-length");
    let wide = chain(Cert::sub().with(|sub| sub.extensions[0] = authority(Some(1))));
    let root = Cert::root().signed(&ROOT);
    let wide = Chain([&wide.0[..3], &[root]].concat());
    verify(&wide.jws(&protected()).bytes(), JWS, &wide.stores(), now()).unwrap();
}

#[test]
fn a_restriction_that_is_not_understood() {
    // Name constraints, whether marked critical or not, and anything else that is critical.
    let constraints = seq(&[&tlv(0xa0, &[&seq(&[&tlv(0x82, &[b"example.com"])])])]);
    for critical in [true, false] {
        let code = sub_code(|sub| sub.extensions.push(extension("2.5.29.30", critical, &constraints)));
        assert_eq!(code, "notation-certificate-extension");
    }
    assert_eq!(
        leaf_code(|leaf| leaf.extensions.push(extension("1.2.3.4", true, &[5, 0]))),
        "notation-certificate-extension"
    );
    let chain = Chain::of(
        &Cert::leaf().with(|leaf| leaf.extensions.push(extension("1.2.3.4", false, &[5, 0]))),
        &Cert::sub(),
        &Cert::root(),
    );
    verify(&chain.jws(&protected()).bytes(), JWS, &chain.stores(), now()).unwrap();
    // The same extension twice, of which another reader could take the other.
    assert_eq!(
        leaf_code(|leaf| leaf.extensions.push(leaf.extensions[0].clone())),
        "notation-certificate-malformed"
    );
}

#[test]
fn a_certificate_for_something_else() {
    let server = "1.3.6.1.5.5.7.3.1";
    for list in [
        &[server][..],
        &[CODE_SIGNING, server],
        &[TIME_STAMPING],
        &["2.5.29.37.0"],
        &["1.3.6.1.4.1.311.10.3.13"],
    ] {
        assert_eq!(
            leaf_code(|leaf| leaf.extensions[1] = usages(false, list)),
            "notation-certificate-usage",
            "{list:?}"
        );
    }
    for usage in [
        key_usage(0x40, true),
        key_usage(DIGITAL_SIGNATURE | 0x20, true),
        key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN, true),
        key_usage(DIGITAL_SIGNATURE, false),
    ] {
        assert_eq!(
            leaf_code(|leaf| leaf.extensions[0] = usage),
            "notation-certificate-usage"
        );
    }
    assert_eq!(
        leaf_code(|leaf| drop(leaf.extensions.remove(0))),
        "notation-certificate-usage"
    );
    // No extended usage at all is what openssl makes when it is not asked.
    let chain = Chain::of(
        &Cert::leaf().with(|leaf| drop(leaf.extensions.pop())),
        &Cert::sub(),
        &Cert::root(),
    );
    verify(&chain.jws(&protected()).bytes(), JWS, &chain.stores(), now()).unwrap();
}

/// SubjectPublicKeyInfo of an RSA key of this many bits.
fn rsa(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0xff; bits / 8];
    modulus.insert(0, 0);
    let key = seq(&[&tlv(2, &[&modulus]), &int(65537)]);
    seq(&[&seq(&[&oid("1.2.840.113549.1.1.1"), &[5, 0]]), &tlv(3, &[&[0], &key])])
}

#[test]
fn keys_and_algorithms_that_are_weak_or_unknown() {
    for bits in [512, 1024, 2040, 8192, 16384, 65536] {
        let started = Instant::now();
        assert_eq!(
            leaf_code(|leaf| leaf.spki = rsa(bits)),
            "notation-certificate-algorithm",
            "{bits}"
        );
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    // A size that has no algorithm of its own.
    assert_eq!(leaf_code(|leaf| leaf.spki = rsa(2560)), "notation-algorithm");
    let on_curve = |curve: &str| seq(&[&seq(&[&oid("1.2.840.10045.2.1"), &oid(curve)]), &tlv(3, &[&[0; 66]])]);
    assert_eq!(
        leaf_code(|leaf| leaf.spki = on_curve("1.3.132.0.10")),
        "notation-certificate-algorithm"
    );
    let ed25519 = seq(&[&seq(&[&oid("1.3.101.112")]), &tlv(3, &[&[0; 33]])]);
    assert_eq!(leaf_code(|leaf| leaf.spki = ed25519), "notation-certificate-algorithm");
    assert_eq!(
        leaf_code(|leaf| leaf.algorithm = SHA1_ECDSA),
        "notation-certificate-algorithm"
    );
    assert_eq!(
        sub_code(|sub| sub.algorithm = SHA1_ECDSA),
        "notation-certificate-algorithm"
    );
}

#[test]
fn the_message_does_not_choose_its_algorithm() {
    let chain = Chain::new();
    for named in ["none", "HS256", "RS256", "PS256", "ES384", "es256", ""] {
        let mut protected = protected();
        protected["alg"] = named.into();
        let code = code_of(&chain.jws(&protected).bytes(), JWS, &chain.stores(), now());
        assert_eq!(code, "notation-algorithm", "{named}");
    }
    let mut nameless = protected();
    nameless.as_object_mut().unwrap().remove("alg");
    assert_eq!(
        code_of(&chain.jws(&nameless).bytes(), JWS, &chain.stores(), now()),
        "notation-algorithm"
    );
    for algorithm in [
        iana::Algorithm::HMAC_256_256,
        iana::Algorithm::ES384,
        iana::Algorithm::PS256,
        iana::Algorithm::EdDSA,
    ] {
        let bytes = chain.cose(cose_protected().algorithm(algorithm).build());
        assert_eq!(code_of(&bytes, COSE, &chain.stores(), now()), "notation-algorithm");
    }
    // An RSA key's signature with PKCS#1 padding under the right name.
    let mut forged = parsed("rsa2048.jws");
    let header = json!({"alg": "RS256", "cty": CTY, "crit": ["io.cncf.notary.signingScheme"], "io.cncf.notary.signingScheme": "notary.x509", "io.cncf.notary.signingTime": "2026-05-01T00:00:00Z"});
    forged["protected"] = BASE64_URL_SAFE_NO_PAD.encode(header.to_string()).into();
    assert_eq!(
        code_of(forged.to_string().as_bytes(), JWS, &recorded_stores(), recorded_at()),
        "notation-algorithm"
    );
}

#[test]
fn a_signature_in_another_encoding_or_over_something_else() {
    let chain = Chain::new();
    let mut jws = chain.jws(&protected());
    let message = format!(
        "{}.{}",
        jws.json["protected"].as_str().unwrap(),
        jws.json["payload"].as_str().unwrap()
    );
    jws.json["signature"] = BASE64_URL_SAFE_NO_PAD.encode(LEAF.sign(message.as_bytes())).into();
    assert_eq!(
        code_of(&jws.bytes(), JWS, &chain.stores(), now()),
        "notation-signature-invalid"
    );
    jws.json["signature"] = BASE64_URL_SAFE_NO_PAD
        .encode(LEAF.sign_envelope(PAYLOAD.as_bytes()))
        .into();
    assert_eq!(
        code_of(&jws.bytes(), JWS, &chain.stores(), now()),
        "notation-signature-invalid"
    );
    jws.json["signature"] = "".into();
    assert_eq!(
        code_of(&jws.bytes(), JWS, &chain.stores(), now()),
        "notation-signature-invalid"
    );
    // The payload of one, the signature of another.
    let mut mixed = parsed("p256.jws");
    mixed["payload"] = parsed("annotated.jws")["payload"].clone();
    assert_eq!(
        code_of(mixed.to_string().as_bytes(), JWS, &recorded_stores(), recorded_at()),
        "notation-signature-invalid"
    );
}

fn protected_code(change: impl FnOnce(&mut Value)) -> &'static str {
    let chain = Chain::new();
    let mut protected = protected();
    change(&mut protected);
    code_of(&chain.jws(&protected).bytes(), JWS, &chain.stores(), now())
}

#[test]
fn attributes_that_are_critical_and_not_understood_or_the_reverse() {
    let code = |crit: Value| protected_code(|protected| protected["crit"] = crit);
    assert_eq!(
        code(json!(["io.cncf.notary.signingScheme", "com.example.unknown"])),
        "notation-critical-unknown"
    );
    assert_eq!(
        code(json!(["io.cncf.notary.signingScheme", "alg"])),
        "notation-critical-unknown"
    );
    assert_eq!(
        code(json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"])),
        "notation-malformed"
    );
    assert_eq!(
        code(json!(["io.cncf.notary.signingScheme", "io.cncf.notary.signingScheme"])),
        "notation-malformed"
    );
    assert_eq!(code(json!([])), "notation-critical-missing");
    assert_eq!(code(json!("io.cncf.notary.signingScheme")), "notation-malformed");
    assert_eq!(
        protected_code(|protected| protected["io.cncf.notary.expiry"] = "2026-12-01T00:00:00Z".into()),
        "notation-critical-missing"
    );
    let text = |name: &str| RegisteredLabelWithPrivate::Text(name.to_owned());
    let cose = |header: Header| {
        let chain = Chain::new();
        code_of(&chain.cose(header), COSE, &chain.stores(), now())
    };
    let unknown = cose_protected().add_critical_label(text("com.example.unknown"));
    assert_eq!(
        cose(unknown.text_value("com.example.unknown".to_owned(), 1.into()).build()),
        "notation-critical-unknown"
    );
    assert_eq!(
        cose(cose_protected().add_critical(iana::HeaderParameter::Kid).build()),
        "notation-critical-unknown"
    );
    let mut missing = cose_protected().build();
    missing.crit.clear();
    assert_eq!(cose(missing), "notation-critical-missing");
}

#[test]
fn what_wants_a_plugin() {
    let fault = |header: &Value| {
        let chain = Chain::new();
        verify(&chain.jws(header).bytes(), JWS, &chain.stores(), now()).unwrap_err()
    };
    for critical in [true, false] {
        let mut header = protected();
        header["io.cncf.notary.verificationPlugin"] = "com.example.plugin".into();
        if critical {
            header["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.verificationPlugin"]);
        }
        assert_eq!(fault(&header), Fault::Plugin("com.example.plugin".to_owned()));
    }
    let chain = Chain::new();
    let header = cose_protected()
        .text_value("io.cncf.notary.verificationPlugin".to_owned(), "p".into())
        .build();
    assert_eq!(
        code_of(&chain.cose(header), COSE, &chain.stores(), now()),
        "notation-plugin"
    );
}

#[test]
fn content_or_schemes_of_another_kind() {
    assert_eq!(
        protected_code(|it| it["cty"] = "application/json".into()),
        "notation-content-type"
    );
    assert_eq!(
        protected_code(|it| it["io.cncf.notary.signingScheme"] = "notary.x509.v2".into()),
        "notation-scheme"
    );
    assert_eq!(
        protected_code(|it| it["io.cncf.notary.signingScheme"] = "".into()),
        "notation-scheme"
    );
    // The time of one scheme under the name of the other.
    assert_eq!(
        protected_code(|it| it["io.cncf.notary.authenticSigningTime"] = "2026-05-01T00:00:00Z".into()),
        "notation-malformed"
    );
    assert_eq!(
        protected_code(|it| it["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority".into()),
        "notation-malformed"
    );
    assert_eq!(
        protected_code(|it| {
            it["io.cncf.notary.expiry"] = "2026-05-01T00:00:00Z".into();
            it["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
        }),
        "notation-malformed"
    );
    let chain = Chain::new();
    let header = cose_protected().content_format(iana::CoapContentFormat::Json).build();
    assert_eq!(
        code_of(&chain.cose(header), COSE, &chain.stores(), now()),
        "notation-content-type"
    );
    // Times in CBOR that are no tagged integers.
    for time in [
        Cbor::from(1_777_593_600),
        Cbor::Tag(1, Box::new(1.5e9.into())),
        Cbor::Tag(0, Box::new("2026-05-01T00:00:00Z".into())),
        Cbor::Tag(1, Box::new(i64::MAX.into())),
    ] {
        let mut header = cose_protected().build();
        header.rest.pop();
        header.rest.push((
            coset::Label::Text("io.cncf.notary.signingTime".to_owned()),
            time.clone(),
        ));
        assert_eq!(
            code_of(&chain.cose(header), COSE, &chain.stores(), now()),
            "notation-malformed",
            "{time:?}"
        );
    }
}

#[test]
fn a_label_twice_in_a_cbor_header() {
    // Built by hand, because the library does not write such a map.
    let chain = Chain::new();
    let bytes = chain.cose(cose_protected().build());
    let Cbor::Tag(18, sign1) = coset::cbor::from_reader::<Cbor, _>(bytes.as_slice()).unwrap() else {
        panic!()
    };
    let parts = sign1.into_array().unwrap();
    let encoded = |parts: Vec<Cbor>| {
        let mut bytes = Vec::new();
        coset::cbor::into_writer(&Cbor::Tag(18, Box::new(Cbor::Array(parts))), &mut bytes).unwrap();
        bytes
    };
    let stores = chain.stores();
    verify(&encoded(parts.clone()), COSE, &stores, now()).unwrap();
    let mut twice = parts.clone();
    let map = twice[1].as_map_mut().unwrap();
    map.push(map[0].clone());
    assert_eq!(code_of(&encoded(twice), COSE, &stores, now()), "notation-malformed");
    for (label, value) in [
        (1.into(), (-7).into()),
        (3.into(), CTY.into()),
        ("com.example".into(), 1.into()),
    ] {
        let mut needless = parts.clone();
        needless[1].as_map_mut().unwrap().push((label, value));
        assert_eq!(code_of(&encoded(needless), COSE, &stores, now()), "notation-malformed");
    }
    let mut detached = parts;
    detached[2] = Cbor::Null;
    assert_eq!(code_of(&encoded(detached), COSE, &stores, now()), "notation-malformed");
}

#[test]
fn a_payload_that_names_no_artifact() {
    let chain = Chain::new();
    let sign = |payload: &str| {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(protected().to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let signature = LEAF.sign_envelope(format!("{protected}.{payload}").as_bytes());
        let mut jws = chain.jws(&json!({})).json;
        jws["protected"] = protected.into();
        jws["payload"] = payload.into();
        jws["signature"] = BASE64_URL_SAFE_NO_PAD.encode(signature).into();
        verify(jws.to_string().as_bytes(), JWS, &chain.stores(), now())
    };
    sign(PAYLOAD).unwrap();
    for payload in [
        String::new(),
        "{}".to_owned(),
        format!("{PAYLOAD} {PAYLOAD}"),
        PAYLOAD.replacen('{', r#"{"targetArtifact":{},"#, 1),
        PAYLOAD.replacen('{', r#"{"more":1,"#, 1),
        PAYLOAD.replace("sha256:a", "sha256:A"),
        PAYLOAD.replace("sha256:", "sha512:"),
        PAYLOAD.replace("528", "-1"),
        PAYLOAD.replace(",\"size\":528", ""),
    ] {
        assert_eq!(sign(&payload).unwrap_err().code(), "notation-payload", "{payload}");
    }
}

#[test]
fn certificates_that_expired_and_nobody_who_says_when_it_was_signed() {
    let chain = Chain::new();
    let jws = chain.jws(&protected()).bytes();
    for outside in ["2025-12-31T23:59:59Z", "2027-01-01T00:00:01Z"] {
        assert_eq!(
            code_of(&jws, JWS, &chain.stores(), at(outside)),
            "notation-certificate-time"
        );
    }
    for inside in ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"] {
        verify(&jws, JWS, &chain.stores(), at(inside)).unwrap();
    }
    // One expired authority is enough, whatever the signer's own certificate says.
    assert_eq!(sub_code(|sub| sub.until = "260501000000Z"), "notation-certificate-time");
}

#[test]
fn certificates_that_were_not_valid_at_the_trusted_time() {
    let chain = Chain::of(
        &Cert::leaf(),
        &Cert::sub().with(|sub| sub.until = "260501000000Z"),
        &Cert::root(),
    );
    let stamped = |time| {
        let jws = chain.jws(&protected());
        let token = Token::new(&jws.signature, time).signed(&STAMP);
        jws.stamped(&token)
    };
    verify(&stamped("20260430235959Z"), JWS, &chain.stores(), now()).unwrap();
    // An authority that had expired, and a time whose accuracy reaches past its end.
    assert_eq!(
        code_of(&stamped("20260502000000Z"), JWS, &chain.stores(), now()),
        "notation-certificate-time"
    );
    assert_eq!(
        code_of(&stamped("20260501000000Z"), JWS, &chain.stores(), now()),
        "notation-certificate-time"
    );
    assert_eq!(
        code_of(&stamped("20251231000000Z"), JWS, &chain.stores(), now()),
        "notation-timestamp-certificate"
    );

    let mut stores = TrustStores::default();
    stores
        .add_certificates(StoreKind::SigningAuthority, "acme", &chain.0[2])
        .unwrap();
    let code = |time| {
        let jws = chain.jws(&authority_protected(time)).bytes();
        verify(&jws, JWS, &stores, now())
            .map_err(|fault| fault.code())
            .map(|it| it.trusted_time.unwrap().latest)
    };
    assert_eq!(code("2026-04-30T00:00:00Z"), Ok(at("2026-04-30T00:00:00Z")));
    assert_eq!(code("2026-05-02T00:00:00Z"), Err("notation-certificate-time"));
    assert_eq!(code("2026-06-01T00:00:01Z"), Err("notation-future"));
}

#[test]
fn timestamps_that_do_not_count() {
    let chain = Chain::new();
    let stores = chain.stores();
    let code_of_token = |change: &dyn Fn(&mut Token), key: &Key, now| {
        let jws = chain.jws(&protected());
        let token = Token::new(&jws.signature, "20260502000000Z")
            .with(|token| change(token))
            .signed(key);
        code_of(&jws.stamped(&token), JWS, &stores, now)
    };
    // Over the payload and not over the signature.
    let payload = |token: &mut Token| token.over = PAYLOAD.as_bytes().to_vec();
    assert_eq!(code_of_token(&payload, &STAMP, now()), "notation-timestamp-imprint");
    // Signed by another key, over another content, or with a certificate that is not in it.
    assert_eq!(code_of_token(&|_| {}, &LEAF, now()), "notation-timestamp-signature");
    let content = |token: &mut Token| token.digest = Some(vec![0; 32]);
    assert_eq!(code_of_token(&content, &STAMP, now()), "notation-timestamp-signature");
    let nobody = |token: &mut Token| token.certificate_hash = Some(vec![0; 32]);
    assert_eq!(code_of_token(&nobody, &STAMP, now()), "notation-timestamp-signature");
    let other = |token: &mut Token| token.signer = seq(&[&named("Time"), &int(6)]);
    assert_eq!(code_of_token(&other, &STAMP, now()), "notation-timestamp-signature");
    let by_key = |token: &mut Token| token.signer = tlv(0x80, &[b"key"]);
    assert_eq!(code_of_token(&by_key, &STAMP, now()), "notation-timestamp-signature");
    // An authority that brings its own root along.
    let root = Cert::tsa().with(|root| root.spki = LEAF.spki.clone()).signed(&LEAF);
    let own = |token: &mut Token| token.certificates = vec![Cert::stamp().signed(&LEAF), root.clone()];
    assert_eq!(code_of_token(&own, &STAMP, now()), "notation-timestamp-untrusted");
    // The signer as its own timestamp authority: its root is trusted for code, not for time.
    let signer = |token: &mut Token| {
        token.certificates = vec![
            Cert::leaf().signed(&SUB),
            Cert::sub().signed(&ROOT),
            Cert::root().signed(&ROOT),
        ];
        token.signer = seq(&[&named("Sub"), &int(3)]);
    };
    assert_eq!(code_of_token(&signer, &LEAF, now()), "notation-timestamp-untrusted");
    // A certificate that is not for timestamps alone, or does not mark that critical, or issues.
    let leaf_code = |extensions: Vec<Vec<u8>>| {
        let stamp = Cert::stamp().with(|stamp| stamp.extensions = extensions).signed(&TSA);
        code_of_token(&|token| token.certificates = vec![stamp.clone()], &STAMP, now())
    };
    let usage = key_usage(DIGITAL_SIGNATURE, true);
    for extensions in [
        vec![usage.clone(), usages(false, &[TIME_STAMPING])],
        vec![usage.clone(), usages(true, &[TIME_STAMPING, CODE_SIGNING])],
        vec![usage.clone(), usages(true, &[CODE_SIGNING])],
        vec![usage.clone()],
        vec![usage, usages(true, &[TIME_STAMPING]), authority(None)],
    ] {
        assert_eq!(leaf_code(extensions), "notation-timestamp-certificate");
    }
    // Outside the validity of the authority's certificate, and from the future.
    let late = |token: &mut Token| token.time = "20270102000000Z";
    assert_eq!(
        code_of_token(&late, &STAMP, at("2028-01-01T00:00:00Z")),
        "notation-timestamp-certificate"
    );
    let future = |token: &mut Token| token.time = "20260601000002Z";
    assert_eq!(code_of_token(&future, &STAMP, now()), "notation-timestamp-future");
    // Not a time, or with an accuracy beyond measure.
    for time in [
        "20260502000000",
        "20260502000000+0100",
        "20260502000000.0Z",
        "20260502000000.Z",
        "20261302000000Z",
        "2026050200Z",
    ] {
        assert_eq!(
            code_of_token(&|token| token.time = time, &STAMP, now()),
            "notation-timestamp-malformed",
            "{time}"
        );
    }
    let vague = |token: &mut Token| token.accuracy = seq(&[&int(1 << 40)]);
    assert_eq!(code_of_token(&vague, &STAMP, now()), "notation-timestamp-malformed");
    // Broken from the first byte, or larger than any.
    let jws = chain.jws(&protected());
    assert_eq!(
        code_of(&chain.jws(&protected()).stamped(b"0"), JWS, &stores, now()),
        "notation-timestamp-malformed"
    );
    assert_eq!(
        code_of(&jws.stamped(&vec![0; MAX_TOKEN + 1]), JWS, &stores, now()),
        "notation-timestamp-malformed"
    );
}

#[test]
fn a_timestamp_may_have_fractions_and_come_over_intermediate_authorities() {
    let chain = Chain::new();
    let jws = chain.jws(&protected());
    let low = Cert::sub().with(|low| {
        low.subject = named("Clocks");
        low.issuer = named("Time");
        low.extensions.push(usages(false, &[TIME_STAMPING]));
    });
    let token = Token::new(&jws.signature, "20260502000000.25Z").with(|token| {
        let stamp = Cert::stamp().with(|stamp| {
            stamp.issuer = named("Clocks");
            stamp.extensions.push(extension("2.5.29.14", false, &octets(b"key")));
        });
        // Unrelated certificates and a copy do no harm.
        token.certificates = vec![
            stamp.signed(&SUB),
            Cert::root().signed(&ROOT),
            low.signed(&TSA),
            low.signed(&TSA),
        ];
        token.accuracy = seq(&[&tlv(0x80, &[&[1]]), &tlv(0x81, &[&[1]])]);
        token.signer = tlv(0x80, &[b"key"]);
    });
    let verified = verify(&jws.stamped(&token.signed(&STAMP)), JWS, &chain.stores(), now()).unwrap();
    let time = verified.trusted_time.unwrap();
    assert_eq!(time.earliest, at("2026-05-02T00:00:00.248999Z"));
    assert_eq!(time.latest, at("2026-05-02T00:00:00.251001Z"));
    assert_eq!(time.authority.unwrap().chain.len(), 3);
}

#[test]
fn what_is_made_to_take_long_does_not() {
    let quick = |what: &str, work: &dyn Fn()| {
        let started = Instant::now();
        work();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{what} took {:?}",
            started.elapsed()
        );
    };
    // A certificate whose name is one set of many values, which readers sort in quadratic time.
    let value = |n: u16| seq(&[&oid("2.5.4.3"), &tlv(0x0c, &[format!("{:04}", 9999 - n).as_bytes()])]);
    let values: Vec<Vec<u8>> = (0..1000).map(value).collect();
    let many = seq(&[&set(&[&values.concat()])]);
    quick("a large set", &|| {
        assert_eq!(
            leaf_code(|leaf| leaf.subject = many.clone()),
            "notation-certificate-malformed"
        )
    });
    // A timestamp full of certificates of one name, none of which leads to a root.
    let chain = Chain::new();
    let jws = chain.jws(&protected());
    let token = Token::new(&jws.signature, "20260502000000Z").with(|token| {
        let stamp = Cert::stamp().with(|stamp| stamp.issuer = named("Loop")).signed(&SUB);
        let same = |serial| {
            let loops = Cert::sub().with(|it| {
                it.serial = serial;
                it.subject = named("Loop");
                it.issuer = named("Loop");
            });
            loops.signed(&SUB)
        };
        token.certificates = std::iter::once(stamp).chain((1..10).map(same)).collect();
    });
    let stamped = jws.stamped(
        &token
            .with(|token| token.signer = seq(&[&named("Loop"), &int(5)]))
            .signed(&STAMP),
    );
    quick("a maze", &|| {
        assert_eq!(
            code_of(&stamped, JWS, &chain.stores(), now()),
            "notation-timestamp-untrusted"
        )
    });
    // Envelopes as large as they may be.
    let nested = [vec![0xd2, 0x84, 0x40, 0xa0], vec![0x81; MAX_ENVELOPE - 4]].concat();
    quick("nested CBOR", &|| {
        assert_eq!(
            code_of(&nested, COSE, &TrustStores::default(), now()),
            "notation-malformed"
        )
    });
    let items = [
        vec![0xd2, 0x84, 0x40, 0xa1, 0x18, 0x21, 0x9a, 0, 0x0f, 0xff, 0],
        vec![0xf6; MAX_ENVELOPE - 11],
    ]
    .concat();
    quick("many items", &|| {
        assert_eq!(
            code_of(&items, COSE, &TrustStores::default(), now()),
            "notation-malformed"
        )
    });
    let text = format!("[{}1]", "1,".repeat(MAX_ENVELOPE / 2 - 2));
    quick("many numbers", &|| {
        assert_eq!(
            code_of(text.as_bytes(), JWS, &TrustStores::default(), now()),
            "notation-malformed"
        )
    });
    let header = HeaderBuilder::new();
    let crowded = (0..70)
        .fold(header, |header, n| {
            header.text_value(format!("attribute {n}"), n.into())
        })
        .build();
    assert_eq!(
        code_of(&chain.cose(crowded), COSE, &chain.stores(), now()),
        "notation-malformed"
    );
}

#[test]
fn every_sentence_is_fit_to_read() {
    let chain = Chain::new();
    let stores = chain.stores();
    let said = |chain: &Chain, header: &Value| {
        verify(&chain.jws(header).bytes(), JWS, &stores, now())
            .unwrap_err()
            .to_string()
    };
    let root = chain.0[2].clone();
    let with_leaf = |leaf: Cert| Chain(vec![leaf.signed(&SUB), Cert::sub().signed(&ROOT), root.clone()]);
    let server = Cert::leaf().with(|leaf| leaf.extensions[1] = usages(false, &["1.3.6.1.5.5.7.3.1"]));
    insta::assert_snapshot!(said(&with_leaf(server), &protected()), @"certificate 1 of its chain (CN=Leaf,O=Acme,ST=Berlin,C=DE): it is for TLS servers");
    let sha1 = Cert::leaf().with(|leaf| leaf.algorithm = SHA1_ECDSA);
    insta::assert_snapshot!(said(&with_leaf(sha1), &protected()), @"certificate 1 of its chain (CN=Leaf,O=Acme,ST=Berlin,C=DE): it is signed with SHA-1; allowed are RSA and ECDSA with SHA-256, SHA-384, SHA-512");
    let rude = Cert::leaf().with(|leaf| {
        leaf.subject = named("\u{1b}[2J\u{202e}");
        leaf.until = "260501000000Z";
    });
    insta::assert_snapshot!(said(&with_leaf(rude), &protected()), @r"certificate 1 of its chain (CN=\u{1b}[2J\u{202e},O=Acme,ST=Berlin,C=DE): it is valid from 2026-01-01T00:00:00Z to 2026-05-01T00:00:00Z, and 2026-06-01T00:00:00Z is outside");
    let mut header = protected();
    header["alg"] = "none".into();
    insta::assert_snapshot!(said(&chain, &header), @"it names the algorithm 'none', and its key signs with ES256");
    let mut header = protected();
    header["crit"] = json!(["io.cncf.notary.signingScheme", "x".repeat(5000)]);
    assert!(said(&chain, &header).len() < 400);
}
