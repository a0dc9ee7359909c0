"""torch.utils.data._utils.collate beside mlgpu.data: what packages' own collating looks at."""

from __future__ import annotations

import re
from typing import Any

from mlgpu.data import default_collate as default_collate

np_str_obj_array_pattern = re.compile(r"[SaUO]")
default_collate_err_msg_format = "default_collate: cannot put together values of {}"
default_collate_fn_map: dict[Any, Any] = {}
