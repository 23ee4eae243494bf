//! The one thing that is wrong.

/// What a [`super::Sigstore`] does wrong, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    // The signer's certificate.
    SctMissing,
    SctByUnknownLog,
    SctOfOtherCertificate,
    SctOutsideKeyWindow,
    LeafIsAuthority,
    LeafWithoutKeyUsage,
    LeafWithoutDigitalSignature,
    LeafWithoutCodeSigning,
    LeafWithoutName,
    LeafWithTwoNames,
    LeafIssuersDisagree,
    LeafWithoutIssuer,
    LeafSelfSigned,
    LeafByUnknownAuthority,
    LeafByLeaf,
    LeafOutsideNameConstraints,
    LeafExpired,
    LeafNotYetValid,
    IntermediateExpired,
    AuthorityOutsideWindow,
    // The log's promise, which vouches for the time.
    PromiseMissing,
    PromiseByOtherKey,
    PromiseOfOtherBody,
    TimeAltered,
    TimeInFuture,
    IndexAltered,
    IndexNegative,
    LogUnknown,
    LogKeyOutsideWindow,
    // The proof that the log holds the entry.
    ProofMissing,
    ProofHashAltered,
    ProofIndexAltered,
    ProofCutShort,
    CheckpointOfOtherTree,
    CheckpointByOtherKey,
    CheckpointWithOtherHint,
    CheckpointByWitnessOnly,
    CheckpointWithoutRoot,
    CheckpointWithoutSize,
    CheckpointWithoutOrigin,
    CheckpointOfOtherOrigin,
    // What the entry is about.
    EntryOfOtherPayload,
    EntryOfOtherSignature,
    EntryOfOtherSigner,
    EntryTwice,
    // Timestamps.
    TimestampMissing,
    TimestampOverPayload,
    TimestampByUnknownAuthority,
    TimestampByUnknownAuthorityEmbedded,
    TimestampByUselessAuthority,
    TimestampOutsideLeaf,
    TimestampOutsideAuthority,
    TimestampOutsideWindow,
    TimestampRefused,
    TimestampTwice,
    TimestampsTooMany,
    // The signature.
    SignatureAltered,
    SignatureByOtherKey,
    SignatureWithoutEncoding,
    SignaturesTwo,
    PayloadAltered,
    PayloadTypeAltered,
}

impl Fault {
    /// Anywhere where a certificate is.
    pub const OF_CERTIFICATE: [Self; 20] = [
        Self::SctMissing,
        Self::SctByUnknownLog,
        Self::SctOfOtherCertificate,
        Self::SctOutsideKeyWindow,
        Self::LeafIsAuthority,
        Self::LeafWithoutKeyUsage,
        Self::LeafWithoutDigitalSignature,
        Self::LeafWithoutCodeSigning,
        Self::LeafWithoutName,
        Self::LeafWithTwoNames,
        Self::LeafIssuersDisagree,
        Self::LeafWithoutIssuer,
        Self::LeafSelfSigned,
        Self::LeafByUnknownAuthority,
        Self::LeafByLeaf,
        Self::LeafOutsideNameConstraints,
        Self::LeafExpired,
        Self::LeafNotYetValid,
        Self::IntermediateExpired,
        Self::AuthorityOutsideWindow,
    ];

    /// Where a log of version 1 promised to take the entry up.
    pub const OF_PROMISE: [Self; 8] = [
        Self::PromiseByOtherKey,
        Self::PromiseOfOtherBody,
        Self::TimeAltered,
        Self::TimeInFuture,
        Self::IndexAltered,
        Self::IndexNegative,
        Self::LogUnknown,
        Self::LogKeyOutsideWindow,
    ];

    /// Where a log proved that it holds the entry.
    pub const OF_PROOF: [Self; 11] = [
        Self::ProofHashAltered,
        Self::ProofIndexAltered,
        Self::ProofCutShort,
        Self::CheckpointOfOtherTree,
        Self::CheckpointByOtherKey,
        Self::CheckpointWithOtherHint,
        Self::CheckpointByWitnessOnly,
        Self::CheckpointWithoutRoot,
        Self::CheckpointWithoutSize,
        Self::CheckpointWithoutOrigin,
        Self::CheckpointOfOtherOrigin,
    ];

    /// Anywhere where a log entry is.
    pub const OF_ENTRY: [Self; 3] = [
        Self::EntryOfOtherPayload,
        Self::EntryOfOtherSignature,
        Self::EntryOfOtherSigner,
    ];

    /// Where a timestamp is.
    pub const OF_TIMESTAMP: [Self; 8] = [
        Self::TimestampOverPayload,
        Self::TimestampByUnknownAuthority,
        Self::TimestampByUnknownAuthorityEmbedded,
        Self::TimestampByUselessAuthority,
        Self::TimestampOutsideLeaf,
        Self::TimestampOutsideAuthority,
        Self::TimestampOutsideWindow,
        Self::TimestampRefused,
    ];

    /// Anywhere where an envelope is.
    pub const OF_ENVELOPE: [Self; 6] = [
        Self::SignatureAltered,
        Self::SignatureByOtherKey,
        Self::SignatureWithoutEncoding,
        Self::SignaturesTwo,
        Self::PayloadAltered,
        Self::PayloadTypeAltered,
    ];
}
