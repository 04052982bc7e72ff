//! What membership counts.

/// Counters of membership since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Probes started.
    pub probes: u64,
    /// Probes that neither the member nor a helper answered.
    pub probes_failed: u64,
    /// Probes without a verdict because this node itself was stalled.
    pub probes_void: u64,
    /// Suspicions that began with a probe of this node's own.
    pub suspicions_by_probe: u64,
    /// Suspicions that began with what others told.
    pub suspicions_by_word: u64,
    /// Suspects looked for because too little was told of them.
    pub looks: u64,
    /// Members held failed with a probe of this node's own among the evidence.
    pub failures_by_probe: u64,
    /// Members held failed by accusers enough, through more than one peer.
    pub failures_by_word: u64,
    /// Members held failed because others do who have waited for their answer.
    pub failures_by_verdicts: u64,
    /// Suspects that refuted.
    pub recoveries: u64,
    /// Members that were held failed and came back in the same boot: they were wrongly held so, or were cut off.
    pub returns: u64,
    /// Members told that others accuse them.
    pub warnings: u64,
    /// Rows by which others would raise a member's incarnation or version by more than they may.
    pub jumps_cut: u64,
    /// Members asked whether they live where others tell, in the boot that others tell.
    pub claims: u64,
    /// Those of them that did not answer there.
    pub claims_dropped: u64,
    /// Members whose answers were measured, because they needed many tries or others found them poor.
    pub assays: u64,
    /// Members held out because they answer far worse than others.
    pub held_out: u64,
    /// Holds that ended early, because others found the member well.
    pub holds_lifted: u64,
    /// Words of members that they are there, while they were held out.
    pub returns_refused: u64,
    /// Accusations against this node that it refuted.
    pub refutations: u64,
    /// Members refused because the table was full.
    pub members_refused: u64,
    /// Frames meant for somebody else, or from a boot that is over: skipped.
    pub misaddressed: u64,
}
