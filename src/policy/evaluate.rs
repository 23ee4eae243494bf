//! Whether the evidence is what a rule asks for.
//!
//! More evidence never turns an allow into a refusal, except for what `[[deny]]` lists.

use jiff::{SignedDuration, Timestamp};

use super::shortfall::{Shortfall, noun};
use super::{
    Active, Asks, CertificatePattern, IdentityPattern, NotationPattern, Provenance, Revocation, Rule, SbomFormat,
    Signed, SignerPattern, Subject, Table, Vsa, mirror,
};
use crate::attest::{self, CYCLONEDX, Condition, Details, SPDX, Summary};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::oci::shorten;
use crate::trust::{Builder, BuilderSigner, TextPattern};
use crate::verify::{Answer, Certificate, Claim, Fact, Finding, Identity, NotationSigner, Problem, Signer, Span};

/// Findings that a refusal repeats; the rest is counted. Kubernetes cuts what it shows at 1024 bytes.
const MAX_FINDINGS: usize = 2;

/// Longest text of a finding that a refusal repeats, in characters.
const MAX_FINDING: usize = 200;

/// Characters of a digest that are enough to find the evidence: `sha256:` and twelve digits.
const SHORT_DIGEST: usize = 19;

/// What the OCI runtime specification calls this machine.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "SCMP_ARCH_AARCH64"
} else {
    "SCMP_ARCH_X86_64"
};

/// Codes of findings about keys that do not count any more.
const CEASED: [&str; 3] = ["key-retired", "key-window", "key-distrusted"];

/// How the codes of findings about conditions start.
const CONDITION: &str = "where-";

/// How the codes of findings about attestations that are signed by way of their manifest start.
const ATTESTATION: &str = "attestation-";

/// How far clocks may be apart before a time counts as lying in the future.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A rule's word about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it allows the image.
    pub allow: bool,
    /// Stable kebab-case code: one of this module's, or that of the finding that stood in the way.
    pub code: String,
    /// One sentence without line breaks.
    pub reason: String,
    /// What to do next; empty for an allow.
    pub fix: String,
    /// The facts that it rests on.
    pub used: Vec<Fact>,
    /// When an allow holds: never longer than any fact that it rests on.
    pub span: Span,
}

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Manifests of the configuration.
    pub manifests: &'a [Digest],
    /// Indexes that list them.
    pub indexes: &'a [Digest],
    /// The configuration.
    pub config: &'a Digest,
    /// Image name as the user wrote it. It proves nothing; only a verification summary is compared with it.
    pub name: Option<&'a str>,
}

impl Image<'_> {
    fn has(&self, digest: &Digest) -> bool {
        digest == self.config || self.manifests.contains(digest) || self.indexes.contains(digest)
    }

    /// The digest that people know the image by.
    fn shown(&self) -> &Digest {
        self.manifests.first().unwrap_or(self.config)
    }
}

fn refuse(code: &str, reason: String, fix: String) -> Outcome {
    Outcome {
        allow: false,
        code: code.to_owned(),
        reason,
        fix,
        used: Vec::new(),
        span: Span::default(),
    }
}

impl Active {
    /// The refusal of an image that the revocation list names: by one of its digests, or by the signer or the log entry
    /// of a signature or attestation about one of them.
    #[must_use]
    pub fn denied(&self, digests: &[Digest], facts: &[Fact]) -> Option<Outcome> {
        let fix = "use another image; an administrator lifts it by removing the [[deny]] entry and running: assay \
                   policy apply";
        if let Some(digest) = digests.iter().find(|digest| self.deny.digest.contains(digest)) {
            let reason = format!("{digest} is on the deny list");
            return Some(refuse("digest-denied", reason, fix.to_owned()));
        }
        facts
            .iter()
            .filter(|fact| digests.contains(&fact.subject))
            .find_map(|fact| {
                let (code, what) = self.denies(fact)?;
                let reason = format!(
                    "{} is signed by {}, and {what} is on the deny list",
                    fact.subject,
                    shown_signer(fact)
                );
                Some(refuse(code, reason, fix.to_owned()))
            })
    }

    /// What of a fact the revocation list names.
    fn denies(&self, fact: &Fact) -> Option<(&'static str, String)> {
        let denied = match &fact.proof.signer {
            Signer::Key(id) => self
                .deny
                .key
                .iter()
                .any(|key| key == id || self.same_key(key, id))
                .then_some(("key-denied", "this key")),
            Signer::Certificate(certificate) => match &certificate.identity {
                Identity::Uri(uri) => self.deny.identity.iter().any(|pattern| pattern.matches(uri)),
                Identity::Email(email) => self.deny.email.contains(email),
            }
            .then_some(("identity-denied", "this identity")),
            Signer::Notation(_) => None,
        };
        if let Some((code, what)) = denied {
            return Some((code, what.to_owned()));
        }
        let entry = fact.proof.logs.iter().find(|entry| {
            // What hides its number could be any entry of its log.
            let listed = |denied: &super::DeniedEntry| {
                denied.log == entry.log && (denied.index == entry.index || entry.unnumbered)
            };
            self.deny.log.iter().any(listed)
        })?;
        let what = if entry.unnumbered {
            format!("an entry of the log {}, which this may be,", entry.log)
        } else {
            format!("the log entry {}:{}", entry.log, entry.index)
        };
        Some(("log-entry-denied", what))
    }

    /// Whether two identifiers are of one key.
    fn same_key(&self, one: &str, other: &str) -> bool {
        let spki = |id: &str| self.keys.iter().find(|key| key.id == id).map(|key| &key.spki);
        spki(one).is_some_and(|key| spki(other) == Some(key))
    }

    /// Who a signer is, whatever it is called: one key is one signer under all of its identifiers, one identity under
    /// all roots.
    fn who(&self, signer: &Signer) -> String {
        match signer {
            Signer::Key(id) => {
                let first = self.keys.iter().find(|key| key.id == *id || self.same_key(&key.id, id));
                format!("key {}", first.map_or(id, |key| &key.id))
            }
            Signer::Certificate(certificate) => match &certificate.identity {
                Identity::Uri(uri) => format!("uri {uri} {}", certificate.issuer),
                Identity::Email(email) => format!("email {email} {}", certificate.issuer),
            },
            Signer::Notation(signer) => format!("subject {}", signer.subject),
        }
    }
}

impl Rule {
    /// The rule's word about an image at this time. `active` is the policy that it is a rule of. The mode plays no part
    /// in it: an audit rule says what it would say under `enforce`.
    #[must_use]
    pub fn evaluate(&self, active: &Active, image: &Image<'_>, answer: &Answer, now: Timestamp) -> Outcome {
        if self.requires_nothing() {
            return refuse(
                "nothing-required",
                "the rule asks for neither a signature, provenance, a verification summary nor a digest, which is not \
                 enough to allow anything"
                    .to_owned(),
                "add [[rule.signature]] or digest to the rule and run: assay policy apply".to_owned(),
            );
        }
        let listed = self.digest.iter().find(|digest| image.has(digest));
        if !self.digest.is_empty() && listed.is_none() {
            let shown = image.shown();
            return refuse(
                "digest-not-listed",
                format!("{shown} is none of the digests that the rule lists"),
                format!("run an image that it lists, or add {shown} to its digest list and run: assay policy apply"),
            );
        }
        let court = Court {
            active,
            conditions: active.conditions(),
            image,
            answer,
            now,
        };
        let mut allow = Outcome {
            allow: true,
            ..refuse("digest-listed", String::new(), String::new())
        };
        let mut reasons = Vec::new();
        for table in &self.tables {
            match court.meet(table) {
                Ok(met) => {
                    let by = distinct(met.iter().map(|(fact, _)| shown_signer(fact)));
                    reasons.push(format!("{} by {}", done(&table.asks), by.join(", ")));
                    for (fact, span) in met {
                        allow.span = allow.span.and(span);
                        if !allow.used.contains(fact) {
                            allow.used.push(fact.clone());
                        }
                    }
                }
                Err(outcome) => return *outcome,
            }
        }
        if self.tables.is_empty() {
            reasons.extend(listed.map(|digest| format!("{digest} is listed by the rule")));
        } else if self.tables.iter().any(|table| table.asks == Asks::Signature) {
            "signature-verified".clone_into(&mut allow.code);
        } else {
            "attestation-verified".clone_into(&mut allow.code);
        }
        allow.reason = distinct(reasons.into_iter()).join("; ");
        allow
    }
}

/// How an allow tells what it rests on.
fn done(asks: &Asks) -> &'static str {
    match asks {
        Asks::Signature => "signed",
        Asks::Provenance(_) => "provenance",
        Asks::Vsa(_) => "verification summary",
        Asks::Sbom(_) => "SBOM",
        Asks::Vex => "VEX document",
        Asks::Profile => "seccomp profile",
    }
}

/// What mends evidence that is there and does not count; `None` where only other evidence does.
fn mend(code: &str) -> Option<&'static str> {
    Some(match code {
        "key-hash" | "key-unusable" => {
            "an administrator corrects the key's entry in trust.d and runs: assay policy apply"
        }
        "key-use" => {
            "have it signed by a signer that the rule names and import that; or, if this key is to count for it, add that \
             to its use in trust.d, the key to the rule where it is not there, and run: assay policy apply"
        }
        "key-unknown" => {
            "have the image signed by a key that the rule names and import that signature; or, if the signer is to be \
             trusted, add its key to trust.d and to the rule and run: assay policy apply"
        }
        "attestation-unsigned" => {
            "have its manifest signed and import that signature; or, where the index is signed that lists it, set signed \
             = \"index\" in the rule and run: assay policy apply"
        }
        "attestation-link-missing" => "import the image's own manifests as well: assay evidence pull IMAGE",
        "attestation-subject"
        | "attestation-size"
        | "attestation-statement"
        | "attestation-signature"
        | "attestation-unlisted"
        | "attestation-platform" => {
            "fetch the evidence again (assay evidence pull IMAGE); if it stays, treat it as forged"
        }
        "key-window" | "key-distrusted" => {
            "have the image signed with a current key and import that signature: assay evidence import PATH"
        }
        "key-retired" => {
            "have the image signed with a current key, name that in the rule and import the signature; or, if this one is \
             to stay valid, run: assay trust retire-key KEY --digest DIGEST, with the digest that was signed, and: assay \
             policy apply"
        }
        "root-too-old" => {
            "an administrator runs: assay trust update (without a network: --from MIRROR), or replaces the root's file and \
             runs: assay policy apply"
        }
        _ => return None,
    })
}

/// Everything that a table is judged by.
struct Court<'a> {
    active: &'a Active,
    conditions: Vec<Condition>,
    image: &'a Image<'a>,
    answer: &'a Answer,
    now: Timestamp,
}

impl<'a> Court<'a> {
    /// The facts that meet a table, each with the span in which it does.
    fn meet(&self, table: &Table) -> Result<Vec<(&'a Fact, Span)>, Box<Outcome>> {
        let family = table.asks.family();
        let mut counted = Vec::new();
        let mut short: Vec<(&Fact, Shortfall)> = Vec::new();
        for fact in &self.answer.facts {
            if fact.claim.family() == Some(family) && self.image.has(&fact.subject) {
                match self.counts(table, fact) {
                    Ok(span) => counted.push((fact, span)),
                    Err(shortfall) => short.push((fact, shortfall)),
                }
            }
        }
        let signers = distinct(counted.iter().map(|(fact, _)| self.active.who(&fact.proof.signer)));
        // A threshold of nothing, which only a forged document has, must not be met by nothing.
        if !signers.is_empty() && signers.len() >= table.threshold {
            return Ok(counted);
        }
        let wanted = wanted(table);
        let shown = self.image.shown();
        let import = format!(
            "assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such {}",
            noun(family).1
        );
        if !signers.is_empty() {
            let by = distinct(counted.iter().map(|(fact, _)| shown_signer(fact))).join(", ");
            let code = Shortfall::TooFew(family).code();
            let reason = format!("{wanted} of {shown} is required, and it is only by {by}");
            return Err(Box::new(refuse(code, reason, import)));
        }
        // What came closest says most about what is missing. Of equals, the first.
        let mut closest: Option<&(&Fact, Shortfall)> = None;
        for candidate in &short {
            if closest.is_none_or(|(_, best)| candidate.1.rank() > best.rank()) {
                closest = Some(candidate);
            }
        }
        if let Some((fact, shortfall)) = closest {
            return Err(Box::new(self.explain(table, &short, fact, shortfall, import)));
        }
        let missing = format!("{wanted} of {shown} is required");
        // What conditions say is about evidence that is there, of another kind than this.
        let mut findings: Vec<&Finding> = self
            .answer
            .findings
            .iter()
            .filter(|finding| !finding.code.starts_with(CONDITION))
            .collect();
        // Most images have attestations that nobody signed, which says nothing about their signature, and more about an
        // attestation that is missing than anything else.
        if family == attest::Family::Signature {
            findings.retain(|finding| !finding.code.starts_with(ATTESTATION));
        } else {
            findings.sort_by_key(|finding| !finding.code.starts_with(ATTESTATION));
        }
        let empty = |finding: &&Finding| finding.code == Problem::CacheEmpty.code();
        if let Some(finding) = findings.iter().copied().find(empty) {
            return Err(Box::new(refuse(
                &finding.code,
                format!("{missing}, and {}", finding.text),
                import,
            )));
        }
        if let Some(finding) = findings.first() {
            let reason = format!("{missing}; found instead: {}", tell(&findings));
            let fix = mend(&finding.code).map_or(import, str::to_owned);
            return Err(Box::new(refuse(&printable(&finding.code), reason, fix)));
        }
        let other = self.answer.facts.iter().find(|fact| signs(&table.any, fact));
        let found = match other.map(|fact| (shown_signer(fact), &fact.claim)) {
            Some((signer, Claim::Attestation(_))) if family == attest::Family::Signature => {
                format!("{signer} only attested it, which is no image signature")
            }
            Some((signer, _)) => format!("what {signer} signed is something else"),
            None => format!("the evidence cache holds no {} of it", noun(family).0),
        };
        let code = Shortfall::Missing(family).code();
        Err(Box::new(refuse(code, format!("{missing}, and {found}"), import)))
    }

    /// The refusal for a piece of evidence that was there and does not count.
    fn explain(
        &self,
        table: &Table,
        short: &[(&Fact, Shortfall)],
        fact: &Fact,
        shortfall: &Shortfall,
        import: String,
    ) -> Outcome {
        let shown = self.image.shown();
        let wanted = wanted(table);
        if let Shortfall::Signer = shortfall {
            let others = distinct(short.iter().map(|(fact, _)| shown_signer(fact))).join(", ");
            let mut reason = format!("{wanted} of {shown} is required, and only that by {others} counts as one");
            // It may be there and have ceased to count, as after a change of keys.
            let ceased: Vec<&Finding> = self
                .answer
                .findings
                .iter()
                .filter(|finding| CEASED.contains(&finding.code.as_str()))
                .collect();
            if !ceased.is_empty() {
                reason.push_str(&format!("; found besides: {}", tell(&ceased)));
            }
            let fix = shortfall.fix().map_or(import, str::to_owned);
            return refuse(shortfall.code(), reason, fix);
        }
        // The parser said more about a condition than whether it holds.
        let said = self.answer.findings.iter().find(|finding| match shortfall {
            Shortfall::Condition(cel) => {
                finding.evidence == Some(fact.evidence)
                    && finding.code.starts_with(CONDITION)
                    && finding.text.contains(&shorten(cel))
            }
            _ => false,
        });
        let code = said.map_or_else(|| shortfall.code().to_owned(), |finding| finding.code.clone());
        let found = match said {
            Some(finding) => tell(&[finding]),
            None => shortfall.to_string(),
        };
        let reason = format!(
            "{wanted} of {shown} is required; that by {} does not count: {}",
            shown_signer(fact),
            printable(&found)
        );
        let fix = shortfall.fix().map_or(import, str::to_owned);
        refuse(&code, reason, fix)
    }

    /// Whether a fact of the right kind is what a table asks for, and when.
    fn counts(&self, table: &Table, fact: &Fact) -> Result<Span, Shortfall> {
        // Only builders can say who signs in place of the table.
        let by_builder = matches!(&table.asks, Asks::Provenance(asks) if !asks.builder.is_empty());
        let is_listed = signs(&table.any, fact) || (by_builder && table.any.is_empty());
        if !is_listed {
            return Err(Shortfall::Signer);
        }
        let Image { manifests, indexes, .. } = self.image;
        let platform = table.subject != Subject::Index && manifests.contains(&fact.subject);
        let index = table.subject != Subject::Platform && indexes.contains(&fact.subject);
        if !platform && !index {
            return Err(Shortfall::Subject(table.asks.family(), fact.subject, table.subject));
        }
        if let Some(index) = fact.chain.as_deref().and_then(|chain| chain.index)
            && table.signed != Signed::Index
        {
            return Err(Shortfall::Index(index));
        }
        if !fact.proof.span.contains(self.now) {
            return Err(Shortfall::Span(fact.proof.span));
        }
        check_revocation(table, fact)?;
        check_logs(table, fact)?;
        let mut span = fact.proof.span;
        if let Some(max_age) = table.max_age {
            let times: Vec<Timestamp> = fact.proof.times.iter().map(|time| time.time).collect();
            // Someone else can have an old signature timestamped anew, so the first time is the one that counts.
            let first = times.iter().min().ok_or(Shortfall::TimeMissing)?;
            span = span.and(self.young(*first, max_age)?);
        }
        let details = fact.details.as_deref();
        match (&table.asks, details) {
            (Asks::Signature | Asks::Vex, _) => {}
            (Asks::Sbom(format), _) => check_format(*format, &fact.claim)?,
            (Asks::Provenance(asks), Some(Details::Provenance(says))) => self.check_provenance(asks, says, fact)?,
            (Asks::Vsa(asks), Some(Details::Summary(says))) => {
                self.check_summary(asks, says)?;
                if let Some(max_age) = table.max_age {
                    span = span.and(self.young(says.time, max_age)?);
                }
            }
            (Asks::Profile, Some(Details::Profile(says))) => {
                if !says.architectures.contains(ARCHITECTURE) {
                    return Err(Shortfall::Machine(says.architectures.iter().cloned().collect()));
                }
            }
            (Asks::Provenance(_) | Asks::Vsa(_) | Asks::Profile, _) => return Err(Shortfall::Unread),
        }
        if let Some(condition) = table.condition() {
            let number = self.conditions.iter().position(|known| *known == condition);
            if !number.is_some_and(|number| fact.held.contains(&number)) {
                return Err(Shortfall::Condition(condition.cel));
            }
        }
        Ok(span)
    }

    /// The span in which something of this time is not older than `max_age` seconds.
    fn young(&self, time: Timestamp, max_age: i64) -> Result<Span, Shortfall> {
        // A time at the end of all times is never past its age.
        let until = time
            .checked_add(SignedDuration::from_secs(max_age))
            .unwrap_or(Timestamp::MAX);
        if time.checked_sub(SKEW).is_ok_and(|earliest| earliest > self.now) {
            Err(Shortfall::Future(time))
        } else if until <= self.now {
            Err(Shortfall::TooOld(time, max_age))
        } else {
            Ok(Span {
                from: time.checked_sub(SKEW).ok(),
                until: Some(until),
            })
        }
    }

    fn check_provenance(&self, asks: &Provenance, says: &attest::Provenance, fact: &Fact) -> Result<(), Shortfall> {
        if !asks.builder.is_empty() {
            let builders = self
                .active
                .builders
                .iter()
                .filter(|builder| asks.builder.contains(&builder.name));
            let mut worst: Option<Shortfall> = None;
            let mut found = false;
            for builder in builders {
                match check_builder(builder, asks, says, &fact.proof.signer) {
                    Ok(()) => {
                        found = true;
                        break;
                    }
                    Err(shortfall) if worst.as_ref().is_none_or(|worst| shortfall.rank() > worst.rank()) => {
                        worst = Some(shortfall);
                    }
                    Err(_) => {}
                }
            }
            if !found {
                return Err(worst.unwrap_or_else(|| Shortfall::Builder(says.builder.clone())));
            }
        }
        if !asks.build_type.is_empty() && !asks.build_type.contains(&says.build_type) {
            return Err(Shortfall::BuildType(says.build_type.clone()));
        }
        if !asks.source.is_empty() {
            if says.sources.is_empty() {
                return Err(Shortfall::SourceMissing);
            }
            let listed = |uri: &str| asks.source.iter().any(|pattern| is_source(pattern, uri));
            if let Some(source) = says.sources.iter().find(|source| !listed(&source.uri)) {
                return Err(Shortfall::Source(source.uri.clone()));
            }
        }
        if let Some(allowed) = &asks.parameters {
            for (name, value) in &says.parameters {
                let mut named = allowed.iter().filter(|parameter| parameter.name == *name).peekable();
                if named.peek().is_none() {
                    return Err(Shortfall::Parameter(name.clone()));
                }
                if !named.any(|parameter| parameter.value.is_none() || parameter.value == *value) {
                    return Err(Shortfall::ParameterValue(name.clone(), value.clone()));
                }
            }
        }
        Ok(())
    }

    fn check_summary(&self, asks: &Vsa, says: &Summary) -> Result<(), Shortfall> {
        if !asks.verifier.contains(&says.verifier) {
            return Err(Shortfall::Verifier(says.verifier.clone()));
        }
        let about = if asks.resource.is_empty() {
            let ours = self.image.name.and_then(|name| mirror::origin(name, &asks.mirror));
            ours.is_some() && ours == resource_name(&says.resource)
        } else {
            asks.resource.iter().any(|pattern| pattern.matches(&says.resource))
        };
        if !about {
            return Err(Shortfall::Resource(says.resource.clone()));
        }
        if !says.passed {
            return Err(Shortfall::Failed);
        }
        if let Some(level) = asks.levels.iter().find(|level| !says.has_level(level)) {
            return Err(Shortfall::SummaryLevel(level.clone(), says.levels.clone()));
        }
        if !asks.policy.is_empty() && !asks.policy.contains(&says.policy) {
            return Err(Shortfall::SummaryPolicy(says.policy.clone()));
        }
        if says.time.checked_sub(SKEW).is_ok_and(|earliest| earliest > self.now) {
            return Err(Shortfall::Future(says.time));
        }
        Ok(())
    }
}

/// The repository that a summary's resource names, where it names an image as a user would.
fn resource_name(resource: &str) -> Option<String> {
    let name = ["oci://", "docker://"]
        .into_iter()
        .find_map(|scheme| resource.strip_prefix(scheme))
        .unwrap_or(resource);
    mirror::origin(name, &[])
}

/// A pattern without a reference matches every reference of its repositories.
fn is_source(pattern: &TextPattern, uri: &str) -> bool {
    if pattern.as_str().contains('@') {
        return pattern.matches(uri);
    }
    let repository = uri.split_once('@').map_or(uri, |(repository, _)| repository);
    pattern.matches(repository)
}

fn check_builder(
    builder: &Builder,
    asks: &Provenance,
    says: &attest::Provenance,
    signer: &Signer,
) -> Result<(), Shortfall> {
    let claimed = &says.builder;
    let is_prefixed = claimed
        .strip_prefix(builder.id.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'));
    if !is_prefixed {
        return Err(Shortfall::Builder(claimed.clone()));
    }
    if !builder.is_named(claimed) {
        return Err(Shortfall::BuilderRef(claimed.clone()));
    }
    let signs = match (&builder.signer, signer) {
        (BuilderSigner::Key(wanted), Signer::Key(id)) => wanted == id,
        (BuilderSigner::Certificate { issuer, root, identity }, Signer::Certificate(certificate)) => {
            let is_it = match (identity, &certificate.identity) {
                (Some(pattern), Identity::Uri(uri)) => pattern.matches(uri),
                (None, Identity::Uri(uri)) => uri == claimed,
                (_, Identity::Email(_)) => false,
            };
            is_it && certificate.issuer == *issuer && certificate.root == *root
        }
        _ => false,
    };
    if !signs {
        return Err(Shortfall::BuilderSigner(claimed.clone()));
    }
    if asks.level.is_some_and(|level| builder.level < level) {
        return Err(Shortfall::Level(builder.name.clone(), builder.level));
    }
    if !builder.build_types.is_empty() && !builder.build_types.contains(&says.build_type) {
        return Err(Shortfall::BuildType(says.build_type.clone()));
    }
    Ok(())
}

fn check_format(format: Option<SbomFormat>, claim: &Claim) -> Result<(), Shortfall> {
    let (Some(format), Claim::Attestation(predicate)) = (format, claim) else {
        return Ok(());
    };
    let family = match format {
        SbomFormat::Spdx => SPDX,
        SbomFormat::CycloneDx => CYCLONEDX,
    };
    if predicate.starts_with(family) {
        Ok(())
    } else {
        Err(Shortfall::Format(format, predicate.clone()))
    }
}

fn check_logs(table: &Table, fact: &Fact) -> Result<(), Shortfall> {
    if table.logs == 0 {
        return Ok(());
    }
    let entries = &fact.proof.logs;
    let included = distinct(
        entries
            .iter()
            .filter(|entry| entry.included)
            .map(|entry| entry.log.as_str()),
    );
    if included.len() >= table.logs {
        Ok(())
    } else if entries.is_empty() {
        Err(Shortfall::LogMissing)
    } else if included.is_empty() {
        Err(Shortfall::LogPromise)
    } else {
        Err(Shortfall::LogTooFew(included.len(), table.logs))
    }
}

/// Where a Notary Project signer matches a pattern that wants revocation to be known, it must be. Several patterns may
/// match; one that does not ask is enough.
fn check_revocation(table: &Table, fact: &Fact) -> Result<(), Shortfall> {
    let Signer::Notation(signer) = &fact.proof.signer else {
        return Ok(());
    };
    let is_waived = table.any.iter().any(|pattern| match pattern {
        SignerPattern::Notation(pattern) => is_notation(pattern, signer) && pattern.revocation == Revocation::Optional,
        SignerPattern::Key(_) | SignerPattern::Certificate(_) => false,
    });
    if signer.revocation_unknown.is_empty() || is_waived {
        Ok(())
    } else {
        Err(Shortfall::Revocation(signer.revocation_unknown.clone()))
    }
}

/// Whether a fact is by one of these signers.
fn signs(any: &[SignerPattern], fact: &Fact) -> bool {
    any.iter().any(|pattern| match (pattern, &fact.proof.signer) {
        (SignerPattern::Key(wanted), Signer::Key(id)) => wanted == id,
        (SignerPattern::Certificate(pattern), Signer::Certificate(certificate)) => is_certificate(pattern, certificate),
        (SignerPattern::Notation(pattern), Signer::Notation(signer)) => is_notation(pattern, signer),
        _ => false,
    })
}

fn is_certificate(pattern: &CertificatePattern, certificate: &Certificate) -> bool {
    let identity = match (&pattern.identity, &certificate.identity) {
        (IdentityPattern::Uri(pattern), Identity::Uri(uri)) => pattern.matches(uri),
        (IdentityPattern::Email(wanted), Identity::Email(email)) => wanted == email,
        _ => false,
    };
    identity
        && certificate.issuer == pattern.issuer
        && certificate.root == pattern.root
        && pattern
            .claims
            .iter()
            .all(|(name, wanted)| certificate.claims.get(name).is_some_and(|claim| wanted.matches(claim)))
}

fn is_notation(pattern: &NotationPattern, signer: &NotationSigner) -> bool {
    signer.store == pattern.store && pattern.subject.matches(&signer.subject)
}

/// What a table asks for, in words.
fn wanted(table: &Table) -> String {
    let (_, what) = noun(table.asks.family());
    let builders = match &table.asks {
        Asks::Provenance(asks) if !asks.builder.is_empty() => {
            let level = asks
                .level
                .map_or_else(String::new, |level| format!(" at level {level}"));
            format!(" from builder {}{level}", asks.builder.join(" or "))
        }
        _ => String::new(),
    };
    let signers: Vec<String> = table
        .any
        .iter()
        .map(|signer| printable(&signer.to_string()).into_owned())
        .collect();
    let by = match (signers.is_empty(), table.threshold) {
        (true, 0 | 1) => String::new(),
        (true, threshold) => format!(" by {threshold} signers"),
        (false, 0 | 1) => format!(" by {}", signers.join(" or ")),
        (false, threshold) => format!(" by {threshold} of {}", signers.join(", ")),
    };
    format!("{what}{builders}{by}")
}

/// A signer as refusals name it.
fn shown_signer(fact: &Fact) -> String {
    printable(&fact.proof.signer.to_string()).into_owned()
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct
}

fn tell(findings: &[&Finding]) -> String {
    let mut told: Vec<String> = findings
        .iter()
        .take(MAX_FINDINGS)
        .map(|finding| {
            let text: String = finding.text.chars().take(MAX_FINDING).collect();
            let place = finding.evidence.map_or_else(String::new, |evidence| {
                let start: String = evidence.to_string().chars().take(SHORT_DIGEST).collect();
                format!(" in {start}")
            });
            format!("{} ({}{place})", printable(&text), printable(&finding.code))
        })
        .collect();
    let rest = findings.len().saturating_sub(MAX_FINDINGS);
    if rest > 0 {
        told.push(format!("and {rest} more"));
    }
    told.join(", ")
}

#[cfg(test)]
mod tests;
