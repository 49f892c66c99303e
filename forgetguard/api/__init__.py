"""forgetguard from Python: load, capability, discover, vulnerability, measure.

import forgetguard as fg

pair = fg.load(base="tiny:base", tuned="tiny:sft")              # nothing loaded yet
ioi = fg.capability("ioi", pairs=64, seed=0)
circuit = fg.discover(pair.base, ioi, method="activation_patching")
result = fg.vulnerability(pair, ioi, circuit)
result.circuit.value, result.circuit.interval, result.heads["L0H4"].value
fg.measure(pair, "kl.forward", prompts=["The capital of France is", ...])
circuit.save("ioi.circuit.yaml")                                # what pytest then gates on
"""
