"""Which devices a computation is traced for; with `plan` it is not the machine that traces it."""

import jax


def target_device() -> tuple[str, str]:
    """(platform, kind) of the devices that the present trace is for, such as ("tpu", "TPU v6 lite").

    They are those of the mesh that `jax.set_mesh` made current, which may be a machine far away, or else the default
    device.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform, device.device_kind
    return jax.default_backend(), jax.devices()[0].device_kind
