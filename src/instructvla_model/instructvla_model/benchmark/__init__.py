"""How long each stage of a policy takes, with random weights; and the released code's schedule beside it."""
