"""Networks of tokens: Seq2Seq, HRED, VHRED, CausalLM; Word2Vec, Tree, MemoryNetwork.

The first four read a source and answer it: a rollout is cut where a source is read (`replies`), a
reader and attention look at it, and a core of ours writes. The others read all of an observation at
once (their spaces: `spaces`). Imports core and networks. Another kind of reader or score is one
class here.
"""
