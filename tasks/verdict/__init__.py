"""Which arm is better, by how much, how sure: matched arms, paired statistics, a sentence.

`paired`      the statistics: ratio of sums, clustered bootstrap-t, seeds as a second level of variance
`replicates`  what a seed does to a difference: variances, degrees of freedom, pairing by seed
`matched`     the proof that two arms differ in selection alone
`sequential`  looking more than once: levels that hold together, and when to stop
`target`      which documents decide
`strata`      the scores of all runs, summed by stratum and cluster; `divided` the parts by columns of the pool
`asked`       the answers of all runs to questions
`savings`     a difference in bits per byte as a share of trained tokens, by the measured loss curves
`looks`       the plan that is registered, the looks that are counted; `by_hand` a look without a comparison
`shortened`   runs that really stop there: do the savings hold?
`design`      which depth, tokens and replicates can show an effect, before anything is trained
`case`        what comparisons are computed from; `compared` one pair of arms
`judge`       from runs on disk to a verdict; `wording` says it in a sentence
"""
