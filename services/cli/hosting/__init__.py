"""The commands that show and change which expert service hosts what: `placement`, `experts` and
`rebalance`.
"""
