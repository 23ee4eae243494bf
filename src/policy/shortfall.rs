//! Why a piece of evidence is not what a table asks for.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{SbomFormat, Subject};
use crate::attest::Family;
use crate::digest::Digest;
use crate::oci::shorten;
use crate::verify::Span;

/// Why evidence does not count, in the order in which it is looked at: what fails later came closer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shortfall {
    /// There is none of this kind.
    Missing(Family),
    /// Fewer signers than wanted.
    TooFew(Family),
    /// Someone else signed.
    Signer,
    /// It is about the index, or about the platform's manifest, and the other is wanted.
    Subject(Family, Digest, Subject),
    /// Only an index that lists it is signed.
    Index(Digest),
    /// It does not hold now.
    Span(Span),
    /// It is not known whether a certificate was revoked.
    Revocation(String),
    /// No log entry.
    LogMissing,
    /// Logs only promised to include it.
    LogPromise,
    /// Fewer logs than wanted.
    LogTooFew(usize, usize),
    /// No trusted time.
    TimeMissing,
    /// A time that has not come yet.
    Future(Timestamp),
    /// Older than wanted, in seconds.
    TooOld(Timestamp, i64),
    /// Its predicate was not read.
    Unread,
    /// An SBOM of another format.
    Format(SbomFormat, String),
    /// A seccomp profile for other machines.
    Machine(Vec<String>),
    /// Another builder.
    Builder(String),
    /// The builder, from a reference that it may not run from.
    BuilderRef(String),
    /// It names a builder that did not sign it.
    BuilderSigner(String),
    /// The builder does not have the level.
    Level(String, u8),
    /// A build type that is not allowed.
    BuildType(String),
    /// It names no source.
    SourceMissing,
    /// A source that is not allowed.
    Source(String),
    /// A parameter that is not allowed.
    Parameter(String),
    /// A parameter with a value that is not allowed.
    ParameterValue(String, Option<String>),
    /// Another verifier.
    Verifier(String),
    /// It is about another resource.
    Resource(String),
    /// The verification failed.
    Failed,
    /// A level was not reached.
    SummaryLevel(String, Vec<String>),
    /// It was verified by another policy.
    SummaryPolicy(String),
    /// A condition does not hold.
    Condition(String),
}

/// A kind of evidence without and with its article.
pub(super) fn noun(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Signature => ("signature", "a signature"),
        Family::Provenance => ("provenance", "provenance"),
        Family::Vsa => ("verification summary", "a verification summary"),
        Family::Sbom => ("SBOM", "an SBOM"),
        Family::Vex => ("VEX document", "a VEX document"),
        Family::Profile => ("seccomp profile", "a seccomp profile"),
    }
}

impl Shortfall {
    /// How close it came.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::TooFew(_) => 0,
            Self::Signer => 1,
            Self::Subject(..) | Self::Index(_) => 2,
            Self::Span(_) => 3,
            Self::Revocation(_) => 4,
            Self::LogMissing | Self::LogPromise | Self::LogTooFew(..) => 5,
            Self::TimeMissing | Self::Future(_) | Self::TooOld(..) => 6,
            Self::Unread | Self::Format(..) | Self::Machine(_) | Self::Builder(_) | Self::Verifier(_) => 7,
            Self::BuilderRef(_) | Self::Resource(_) => 8,
            Self::BuilderSigner(_) | Self::Failed => 9,
            Self::Level(..) | Self::SummaryLevel(..) => 10,
            Self::BuildType(_) | Self::SummaryPolicy(_) => 11,
            Self::SourceMissing | Self::Source(_) => 12,
            Self::Parameter(_) | Self::ParameterValue(..) => 13,
            Self::Condition(_) => 14,
        }
    }

    /// Stable kebab-case code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Missing(family) => match family {
                Family::Signature => "signature-missing",
                Family::Provenance => "provenance-missing",
                Family::Vsa => "vsa-missing",
                Family::Sbom => "sbom-missing",
                Family::Vex => "vex-missing",
                Family::Profile => "profile-missing",
            },
            Self::TooFew(family) => match family {
                Family::Signature => "signature-too-few",
                Family::Provenance => "provenance-too-few",
                Family::Vsa => "vsa-too-few",
                Family::Sbom => "sbom-too-few",
                Family::Vex => "vex-too-few",
                Family::Profile => "profile-too-few",
            },
            Self::Signer => "signer-not-wanted",
            Self::Subject(family, ..) => match family {
                Family::Signature => "signature-subject",
                Family::Provenance => "provenance-subject",
                Family::Vsa => "vsa-subject",
                Family::Sbom => "sbom-subject",
                Family::Vex => "vex-subject",
                Family::Profile => "profile-subject",
            },
            Self::Index(_) => "attestation-index-only",
            Self::Span(_) => "evidence-not-in-force",
            Self::Revocation(_) => "revocation-unknown",
            Self::LogMissing => "log-missing",
            Self::LogPromise => "log-promise-only",
            Self::LogTooFew(..) => "log-too-few",
            Self::TimeMissing => "time-missing",
            Self::Future(_) => "time-in-future",
            Self::TooOld(..) => "evidence-too-old",
            Self::Unread => "predicate-unread",
            Self::Format(..) => "sbom-format",
            Self::Machine(_) => "profile-machine",
            Self::Builder(_) => "builder-not-wanted",
            Self::BuilderRef(_) => "builder-ref",
            Self::BuilderSigner(_) => "builder-not-signer",
            Self::Level(..) => "builder-level",
            Self::BuildType(_) => "build-type-not-wanted",
            Self::SourceMissing => "source-missing",
            Self::Source(_) => "source-not-wanted",
            Self::Parameter(_) => "parameter-not-allowed",
            Self::ParameterValue(..) => "parameter-value",
            Self::Verifier(_) => "vsa-verifier",
            Self::Resource(_) => "vsa-resource",
            Self::Failed => "vsa-failed",
            Self::SummaryLevel(..) => "vsa-level",
            Self::SummaryPolicy(_) => "vsa-policy",
            Self::Condition(_) => "where-false",
        }
    }

    /// What to do next, where it is something else than to import other evidence.
    pub(super) fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing(_) | Self::TooFew(_) => return None,
            Self::Signer => {
                "have it signed by a signer that the rule names and import that; or, if the one that counts is to be \
                 accepted, add it to the rule and run: assay policy apply"
            }
            Self::Subject(..) => "sign that too, or set subject = \"either\" in the rule and run: assay policy apply",
            Self::Index(_) => {
                "have the attestation manifest signed and import that signature, or set signed = \"index\" in the rule and \
                 run: assay policy apply"
            }
            Self::Span(_) => "check this node's clock, or import evidence that holds now: assay evidence import PATH",
            Self::Revocation(_) => {
                "put current revocation lists into crl of the trust store in trust.d and run: assay policy apply"
            }
            Self::LogMissing | Self::LogPromise | Self::LogTooFew(..) => {
                "have it signed with a transparency log and import that, or set log = \"optional\" in the rule and run: \
                 assay policy apply"
            }
            Self::TimeMissing => {
                "have it signed with a transparency log or a timestamp authority and import that, or remove max_age \
                 from the rule and run: assay policy apply"
            }
            Self::Future(_) => "check this node's clock",
            Self::TooOld(..) => "build and sign the image anew, and import its evidence: assay evidence import PATH",
            Self::Unread => "report it; the evidence was not read as a whole",
            Self::Format(..) => {
                "have an SBOM of that format attested, or change format in the rule and run: assay policy apply"
            }
            Self::Machine(_) => "have a profile attested that was made on a machine like this one",
            Self::Level(..) => {
                "have the image built by a builder of that level, or lower level in the rule and run: assay policy apply"
            }
            Self::Builder(_) | Self::BuilderRef(_) => {
                "have the image built by a builder that the rule names; or add this one to trust.d and to the rule and \
                 run: assay policy apply"
            }
            Self::BuilderSigner(_) => "use an image whose provenance its own builder signed; treat this one as forged",
            Self::BuildType(_) => {
                "have the image built in a way that the rule allows, or add the build type to the rule and to the \
                 builder's build_types and run: assay policy apply"
            }
            Self::SourceMissing | Self::Source(_) => {
                "use an image built from a source that the rule lists, or add the source to the rule and run: assay \
                 policy apply"
            }
            Self::Parameter(_) | Self::ParameterValue(..) => {
                "have the image built without it, or add it to parameters in the rule and run: assay policy apply"
            }
            Self::Verifier(_) | Self::Resource(_) | Self::SummaryPolicy(_) => {
                "import a summary that the rule is about, or correct the rule's [[rule.vsa]] and run: assay policy apply"
            }
            Self::Failed | Self::SummaryLevel(..) => "use an image that passed the verification at that level",
            Self::Condition(_) => {
                "use an image for which the condition holds, or correct it and run: assay policy apply"
            }
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(family) => write!(f, "there is no {}", noun(*family).0),
            Self::TooFew(_) => f.write_str("there are too few signers"),
            Self::Signer => f.write_str("the rule does not list its signer"),
            Self::Subject(_, found, wanted) => {
                let wanted = match wanted {
                    Subject::Platform => "the platform's manifest itself, not an index",
                    Subject::Index => "an index that lists the image, not the manifest alone",
                    Subject::Either => "the manifest or an index that lists it",
                };
                write!(f, "it is about {found}, and the rule asks for {wanted}")
            }
            Self::Index(index) => write!(
                f,
                "only the index {index}, which lists its attestation manifest, is signed, and the rule asks for a \
                 signature of that manifest"
            ),
            Self::Span(Span { from, until }) => match (from, until) {
                (Some(from), Some(until)) => write!(f, "it holds from {from} until {until}, which is not now"),
                (Some(from), None) => write!(f, "it holds only from {from} on"),
                (None, Some(until)) => write!(f, "it held only until {until}"),
                (None, None) => f.write_str("it does not hold now"),
            },
            Self::Revocation(why) => {
                write!(
                    f,
                    "it is not known whether its certificates were revoked: {}",
                    shorten(why)
                )
            }
            Self::LogMissing => f.write_str("it has no entry in a transparency log"),
            Self::LogPromise => {
                f.write_str("a transparency log only promised to include it, and inclusion is not proved")
            }
            Self::LogTooFew(have, wanted) => write!(
                f,
                "{have} of the {wanted} different transparency logs that the rule asks for include it"
            ),
            Self::TimeMissing => {
                f.write_str("nobody that is trusted says when it was signed, so that its age is not known")
            }
            Self::Future(time) => write!(f, "it is of {time}, which has not come yet"),
            Self::TooOld(time, max_age) => write!(
                f,
                "it is of {time}, and the rule accepts nothing older than {:#}",
                SignedDuration::from_secs(*max_age)
            ),
            Self::Unread => f.write_str("its predicate was not read"),
            Self::Format(wanted, found) => {
                write!(f, "it is of type {}, and the rule asks for {wanted}", shorten(found))
            }
            Self::Machine(found) => write!(f, "it is for {}, which this machine is not", shorten(&found.join(", "))),
            Self::Builder(found) => write!(f, "it names the builder {}", shorten(found)),
            Self::BuilderRef(found) => write!(
                f,
                "it names the builder {}, whose reference trust.d does not accept",
                shorten(found)
            ),
            Self::BuilderSigner(found) => write!(f, "it names the builder {}, which did not sign it", shorten(found)),
            Self::Level(name, level) => write!(f, "trust.d gives its builder {name} only level {level}"),
            Self::BuildType(found) => write!(f, "its build type is {}", shorten(found)),
            Self::SourceMissing => f.write_str("it names no source"),
            Self::Source(found) => write!(f, "it was built from {}", shorten(found)),
            Self::Parameter(name) => write!(f, "it was built with the parameter {}", shorten(name)),
            Self::ParameterValue(name, Some(value)) => {
                write!(
                    f,
                    "it was built with the parameter {}={}",
                    shorten(name),
                    shorten(value)
                )
            }
            Self::ParameterValue(name, None) => {
                write!(
                    f,
                    "it was built with a value of the parameter {} that is too long to compare",
                    shorten(name)
                )
            }
            Self::Verifier(found) => write!(f, "its verifier is {}", shorten(found)),
            Self::Resource(found) => write!(f, "it is about {}", shorten(found)),
            Self::Failed => f.write_str("the verification did not pass"),
            Self::SummaryLevel(wanted, found) => {
                write!(
                    f,
                    "{} is asked for, and it reached only {}",
                    shorten(wanted),
                    shorten(&found.join(", "))
                )
            }
            Self::SummaryPolicy(found) if found.is_empty() => f.write_str("it does not say by which policy"),
            Self::SummaryPolicy(found) => write!(f, "it was verified by the policy {}", shorten(found)),
            Self::Condition(cel) => write!(f, "where = {} does not hold for it", shorten(cel)),
        }
    }
}
