"""The paper's claims at nano size: what each part of the policy and of its training is good for."""
