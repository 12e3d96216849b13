"""One or several Cloud TPU VMs through a queued resource.

The queued resource and its TPU VM have the same name; several TPU VMs, one per
slice, have the suffixes -0, -1, ... When a Spot VM is preempted, its queued
resource is SUSPENDED: both are deleted and requested again.
"""

import dataclasses
import time
from typing import Any

from rest_jax.launch import commands
from rest_jax.launch.targets import tpu_vm

# States of a queued resource or TPU VM after a preemption.
_PREEMPTED = ('SUSPENDED', 'PREEMPTED', 'TERMINATED')


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuedResource(tpu_vm.TpuVm):
  """A run on the TPU VMs, one per slice, of a queued resource."""

  num_slices: int = 1

  @property
  def machines(self) -> tuple[tpu_vm.Machine, ...]:
    if self.num_slices == 1:
      return (self.machine,)
    return tuple(
      dataclasses.replace(self.machine, name=f'{self.machine.name}-{number}')
      for number in range(self.num_slices)
    )

  def request(self) -> commands.Command:
    """Returns the command that creates the queued resource."""
    machine = self.machine
    machine.check_complete()
    nodes = [f'--node-id={machine.name}']
    if self.num_slices > 1:
      nodes = [
        f'--node-count={self.num_slices}',
        f'--node-prefix={machine.name}',
      ]
    return machine.gcloud(
      'queued-resources',
      'create',
      machine.name,
      *nodes,
      f'--accelerator-type={machine.accelerator_type}',
      f'--runtime-version={machine.runtime_version}',
      *(['--spot'] if machine.spot else []),
    )

  def describe(self) -> commands.Command:
    """Returns the command that prints the state of the queued resource."""
    return self.machine.gcloud(
      'queued-resources', 'describe', self.machine.name, '--format=json'
    )

  def deletion(self) -> commands.Command:
    """Returns the command that deletes the queued resource and its TPU VMs."""
    return self.machine.gcloud(
      'queued-resources', 'delete', self.machine.name, '--force'
    )

  def acquire(self) -> dict[str, Any]:
    """Waits until the TPU VMs are ready; requests them if needed."""
    machine = self.machine
    last = None
    while True:
      description = machine.description(self.describe())
      state = description['state']['state'] if description else ''
      if state == 'ACTIVE':
        nodes = [each.description(each.describe()) for each in self.machines]
        state = next(
          (
            node['state'] if node else 'ACTIVE without its TPU VM'
            for node in nodes
            if not node or node['state'] != tpu_vm.READY
          ),
          tpu_vm.READY,
        )
        if state == tpu_vm.READY:
          return {
            'networkEndpoints': [
              worker
              for node in nodes
              if node
              for worker in node['networkEndpoints']
            ]
          }
      if state == 'FAILED':
        assert description is not None
        raise commands.LaunchError(
          f'the queued resource {machine.name} failed: {description["state"]}. '
          f'Delete it: {self.deletion().text()}'
        )
      if state and state != last:
        commands.say(f'{machine.name} is {state}')
      last = state
      if state in _PREEMPTED:
        commands.run(self.deletion(), machine.command_timeout)
      if not state or state in _PREEMPTED:
        commands.run(self.request(), machine.command_timeout)
      else:
        time.sleep(machine.poll_seconds)

  def _plan_machine(self) -> list[str]:
    return [
      '# The queued resource, until it is ACTIVE:',
      self.describe().text(),
      '# If it does not exist:',
      self.request().text(),
      '# After a preemption (SUSPENDED), before it is created again:',
      self.deletion().text(),
      '# Its TPU VM:' if self.num_slices == 1 else '# Its TPU VMs:',
      *(machine.describe().text() for machine in self.machines),
    ]
