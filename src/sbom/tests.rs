use std::fmt::Write as _;

use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const PURL: &str = "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12";

fn spdx2(version: &str) -> String {
    format!(
        r#"{{"spdxVersion":"{version}","SPDXID":"SPDXRef-DOCUMENT","packages":[
        {{"name":"bash","SPDXID":"p","externalRefs":[{{"referenceCategory":"SECURITY","referenceType":"cpe23Type","referenceLocator":"cpe"}},
          {{"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl","referenceLocator":"{PURL}"}}]}},
        {{"name":"image","SPDXID":"i"}}],
        "files":[{{"fileName":"usr/bin/app","SPDXID":"f","checksums":[{{"algorithm":"SHA1","checksumValue":"00"}},{{"algorithm":"SHA256","checksumValue":"{HASH}"}}]}},
          {{"fileName":"./usr/bin/link","checksums":[{{"algorithm":"SHA1","checksumValue":"0000000000000000000000000000000000000000"}}]}}],
        "relationships":[{{"spdxElementId":"p","relatedSpdxElement":"f","relationshipType":"CONTAINS"}},
          {{"spdxElementId":"p","relatedSpdxElement":"p","relationshipType":"CONTAINS"}}]}}"#
    )
}

fn cyclonedx(version: &str) -> String {
    format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"{version}","metadata":{{"component":{{"type":"container","name":"x"}}}},
        "components":[{{"type":"application","name":"group","components":[{{"type":"library","name":"bash","purl":"{PURL}"}}]}},
        {{"type":"library","name":"nameless"}},
        {{"type":"file","name":"/usr/bin/app","hashes":[{{"alg":"SHA-256","content":"{HASH}"}}]}}]}}"#
    )
}

fn spdx3() -> String {
    format!(
        r#"{{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[
        {{"type":"CreationInfo","@id":"_:c"}},
        {{"type":"software_Package","spdxId":"p","name":"bash","software_packageUrl":"{PURL}"}},
        {{"type":"software_Package","spdxId":"q","name":"bash","externalIdentifier":["_:x",{{"type":"ExternalIdentifier","externalIdentifierType":"packageUrl","identifier":"{PURL}"}}]}},
        {{"type":"software_Package","spdxId":"r"}},
        {{"type":"software_File","spdxId":"f","name":"/usr/bin/app","verifiedUsing":["_:h",{{"type":"Hash","algorithm":"sha256","hashValue":"{HASH}"}}]}},
        {{"type":"Relationship","from":"p","to":["p"],"relationshipType":"contains"}}]}}"#
    )
}

fn syft() -> String {
    format!(
        r#"{{"artifacts":[{{"id":"1","name":"bash","purl":"{PURL}"}},{{"id":"2","name":"nameless","purl":""}}],"artifactRelationships":null,
        "files":[{{"id":"f","location":{{"path":"/usr/bin/app","layerID":"l"}},"digests":[{{"algorithm":"sha1","value":"00"}},{{"algorithm":"sha256","value":"{HASH}"}}]}}],
        "descriptor":{{"name":"syft"}},"schema":{{"version":"16.1.10","url":"https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-16.1.10.json"}}}}"#
    )
}

fn refused(json: &str) -> String {
    read(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn all_formats_say_the_same_about_one_image() {
    let documents = [
        (spdx2("SPDX-2.2"), Format::Spdx),
        (spdx2("SPDX-2.3"), Format::Spdx),
        (spdx3(), Format::Spdx),
        (cyclonedx("1.4"), Format::Cyclonedx),
        (cyclonedx("1.7"), Format::Cyclonedx),
        (syft(), Format::Syft),
        (
            format!(r#"{{"Data":{},"Timestamp":"x"}}"#, spdx2("SPDX-2.3")),
            Format::Spdx,
        ),
    ];
    for (document, format) in documents {
        let sbom = read(document.as_bytes()).unwrap();
        assert_eq!(sbom.format, format, "{document}");
        assert_eq!(sbom.packages, [PURL.parse().unwrap()], "{document}");
        assert_eq!(sbom.unnamed, 1, "{document}");
        assert_eq!(sbom.file_count(), 1, "{document}");
        assert!(
            sbom.has_path("/usr/bin/app") && !sbom.has_path("/usr/bin/link"),
            "{document}"
        );
        assert!(sbom.has_file("/usr/bin/app", &Digest::of(b"")), "{document}");
        assert!(!sbom.has_file("/usr/bin/app", &Digest::of(b"other")), "{document}");
        assert!(!sbom.has_file("/usr/bin/ap", &Digest::of(b"")), "{document}");
    }
}

#[test]
fn what_is_no_sbom_is_refused_in_words() {
    insta::assert_snapshot!(refused("{}"), @"this is none of SPDX JSON, CycloneDX JSON and syft JSON");
    insta::assert_snapshot!(refused("[]"), @"this is none of SPDX JSON, CycloneDX JSON and syft JSON");
    insta::assert_snapshot!(refused(r#"{"bomFormat":"OtherDX","specVersion":"1.5"}"#), @"this is none of SPDX JSON, CycloneDX JSON and syft JSON");
    insta::assert_snapshot!(refused(&spdx2("SPDX-2.1")), @r#"this is SPDX "SPDX-2.1"; versions 2.2, 2.3 and 3.0 are read"#);
    insta::assert_snapshot!(refused(&cyclonedx("1.3")), @r#"this is CycloneDX "1.3"; versions 1.4 to 1.7 are read"#);
    insta::assert_snapshot!(refused(r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{}}"#), @"this is an in-toto statement: the SBOM is its predicate");
    let both = cyclonedx("1.5").replacen('{', r#"{"spdxVersion":"SPDX-2.3","#, 1);
    insta::assert_snapshot!(refused(&both), @"this claims to be SPDX and CycloneDX at once");
    insta::assert_snapshot!(refused(r#"{"spdxVersion":"SPDX-2.3","packages":{}}"#), @"the SBOM cannot be read: invalid type: map, expected a list at line 1 column 39");
    insta::assert_snapshot!(refused(r#"{"spdxVersion":"SPDX-2.3","packages":[],"packages":[]}"#), @"the SBOM cannot be read: duplicate field `packages` at line 1 column 50");
    let whole = spdx2("SPDX-2.3");
    for end in [whole.len() - 1, whole.len() / 2, 1] {
        assert!(matches!(read(&whole.as_bytes()[..end]), Err(Error::Json(_))), "{end}");
    }
}

#[test]
fn an_sbom_too_large_to_be_genuine_is_refused_before_it_fills_memory() {
    let mut document = r#"{"spdxVersion":"SPDX-2.3","files":["#.to_owned();
    for n in 0..=MAX_FILES {
        let comma = if n == 0 { "" } else { "," };
        write!(
            document,
            r#"{comma}{{"fileName":"{n}","checksums":[{{"algorithm":"SHA256","checksumValue":"{HASH}"}}]}}"#
        )
        .unwrap();
    }
    document.push_str("]}");
    assert!(document.len() < MAX_BYTES);
    let error = refused(&document);
    assert!(
        error.starts_with("the SBOM cannot be read: more than 400000 files"),
        "{error}"
    );
    assert!(matches!(read(&vec![b' '; MAX_BYTES + 1]), Err(Error::TooLarge)));
}

#[test]
fn relationships_in_a_circle_are_not_followed() {
    let circle = r#"{"spdxElementId":"a","relatedSpdxElement":"b","relationshipType":"CONTAINS"},
        {"spdxElementId":"b","relatedSpdxElement":"a","relationshipType":"CONTAINS"}"#;
    let document = format!(
        r#"{{"spdxVersion":"SPDX-2.3","packages":[{{"SPDXID":"a"}},{{"SPDXID":"b"}}],"relationships":[{}]}}"#,
        vec![circle; 10_000].join(",")
    );
    assert_eq!(read(document.as_bytes()).unwrap().unnamed, 2);
    let circle = r#"{"ref":"a","dependsOn":["b","a"]},{"ref":"b","dependsOn":["a"]}"#;
    let document = format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{{"type":"library","bom-ref":"a","name":"a"}}],"dependencies":[{}]}}"#,
        vec![circle; 10_000].join(",")
    );
    assert_eq!(read(document.as_bytes()).unwrap().unnamed, 1);
}

#[test]
fn components_in_components_without_end_are_refused() {
    let mut document = r#"{"bomFormat":"CycloneDX","specVersion":"1.5","components":["#.to_owned();
    document.push_str(&r#"{"components":["#.repeat(10_000));
    document.push_str(&"]}".repeat(10_001));
    let error = refused(&document);
    assert!(error.contains("recursion limit"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, at in 0usize..2000, byte: u8) {
        let _ = read(&bytes);
        for document in [spdx2("SPDX-2.3"), spdx3(), cyclonedx("1.5"), syft()] {
            let mut bytes = document.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
