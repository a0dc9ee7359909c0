"""The benchmark suite behind `mlgpu bench`: mlgpu against other libraries, interleaved in one run.

A driver (driver.py) holds one worker process (worker.py) per library and asks them in turn for one
sample of one workload.  Modules import each other relatively: a worker loads this folder as a
package of its own name, so that the process of another library holds nothing of mlgpu.
"""
