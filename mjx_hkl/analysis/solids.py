"""A world's solids in a browser: MuJoCo's geoms as meshes, and the discs that a task marks."""

from typing import Any, cast

import mujoco
import numpy as np
import trimesh
import viser
from jaxtyping import Float

from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.scenery import Scenery

_GEOM = mujoco.mjtGeom
_HIDDEN_GROUPS = 3  # MuJoCo too shows groups 0 to 2 alone
_SELECTED, _OTHER = (30, 150, 65), (120, 126, 138)
_EDGE = 0.6  # radians between two faces from which on there is an edge
_DISC = 0.01  # metres, the height of a mark
_GROUND, _CELLS, _SECTIONS = (226, 230, 236), (204, 210, 219), (176, 184, 196)


class Solids:
    """What is drawn of a world; all hangs on one frame, so that the ground can move under a camera.

    The camera of a browser belongs to whoever looks through it. A body that is followed stays where it is
    over the ground of the browser, and the world moves.
    """

    def __init__(self, server: viser.ViserServer, scenery: Scenery):
        """Adds everything to the server's scene; nothing is placed yet."""
        self._scenery, self._model = scenery, scenery.model
        self._data = mujoco.MjData(scenery.model)
        self._scene = server.scene
        self._root = self._scene.add_frame("/world", show_axes=False)
        self._frames: dict[int, viser.FrameHandle] = {}
        self._marks: list[viser.CylinderHandle] = []
        for body in range(self._model.nbody):
            self._add_body(body)

    def draw(self, visible: Any, marks: Marks | None, follows: bool) -> None:
        """Places everything.

        Args:
          visible: of the world, on the host.
          marks: of its task, on the host.
          follows: whether the world moves, so that the torso does not.
        """
        self._scenery.place(self._data, visible)
        mujoco.mj_kinematics(self._model, self._data)
        for body, frame in self._frames.items():
            frame.position, frame.wxyz = self._data.xpos[body], self._data.xquat[body]
        if follows:
            x, y, _ = self._data.xpos[self._scenery.torso]
            self._root.position = (-x, -y, 0.0)
        if marks is not None:
            self._draw_marks(marks)

    def _draw_marks(self, marks: Marks) -> None:
        while len(self._marks) < len(marks.radius):
            name = f"/world/marks/{len(self._marks)}"
            self._marks.append(self._scene.add_cylinder(name, 1.0, _DISC, cast_shadow=False))
        for disc, position, radius, selected in zip(self._marks, *marks, strict=True):
            disc.position, disc.visible = np.asarray(position, float), bool(radius > 0)
            disc.radius, disc.color = float(radius), _SELECTED if selected else _OTHER

    def _add_body(self, body: int) -> None:
        """A frame for a body that has something to see, with its geoms in it."""
        model = self._model
        first = int(model.body_geomadr[body])
        geoms = [geom for geom in range(first, first + int(model.body_geomnum[body])) if self._is_seen(geom)]
        if not geoms:
            return
        name = f"/world/{body}"
        self._frames[body] = self._scene.add_frame(name, show_axes=False)
        solids = [geom for geom in geoms if model.geom_type[geom] != _GEOM.mjGEOM_PLANE]
        for geom in set(geoms) - set(solids):
            self._add_plane(f"{name}/{geom}", geom)
        if solids:
            mesh = cast(trimesh.Trimesh, trimesh.util.concatenate([_placed(model, geom) for geom in solids]))
            _ = mesh.vertex_normals  # computed so that they are sent: else a browser shows every triangle
            self._scene.add_mesh_trimesh(f"{name}/solids", mesh)

    def _add_plane(self, name: str, geom: int) -> None:
        width, height = (2 * float(x) for x in self._model.geom_size[geom][:2])
        self._scene.add_grid(
            name,
            width or 10.0,
            height or 10.0,
            infinite_grid=not (width and height),
            cell_size=0.5,
            section_size=1.0,
            cell_color=_CELLS,
            section_color=_SECTIONS,
            plane_color=_GROUND,
            plane_opacity=1.0,
            fade_distance=60.0,
            shadow_opacity=0.3,
            position=self._model.geom_pos[geom],
            wxyz=self._model.geom_quat[geom],
        )

    def _is_seen(self, geom: int) -> bool:
        return self._model.geom_group[geom] < _HIDDEN_GROUPS and colour_of(self._model, geom)[3] > 0


def mesh_of(model: mujoco.MjModel, geom: int) -> trimesh.Trimesh:
    """A geom's surface in its own frame, metres, without colour; of any kind but a plane."""
    kind, size = _GEOM(model.geom_type[geom]), model.geom_size[geom]
    if kind == _GEOM.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(subdivisions=3, radius=size[0])
    if kind == _GEOM.mjGEOM_ELLIPSOID:
        return trimesh.creation.icosphere(subdivisions=3).apply_scale(size)
    if kind == _GEOM.mjGEOM_CAPSULE:
        return trimesh.creation.capsule(radius=size[0], height=2 * size[1])
    if kind == _GEOM.mjGEOM_CYLINDER:
        return trimesh.creation.cylinder(radius=size[0], height=2 * size[1])
    if kind == _GEOM.mjGEOM_BOX:
        return trimesh.creation.box(extents=2 * size)
    if kind == _GEOM.mjGEOM_HFIELD:
        return _height_field(model, int(model.geom_dataid[geom]))
    mesh = model.mesh(int(model.geom_dataid[geom]))
    points = model.mesh_vert[mesh.vertadr[0] :][: mesh.vertnum[0]]
    return trimesh.Trimesh(points, model.mesh_face[mesh.faceadr[0] :][: mesh.facenum[0]], process=False)


def _height_field(model: mujoco.MjModel, number: int) -> trimesh.Trimesh:
    """The upper surface: two triangles for each cell."""
    rows, columns = int(model.hfield_nrow[number]), int(model.hfield_ncol[number])
    half_x, half_y, top, _ = model.hfield_size[number]
    heights = model.hfield_data[model.hfield_adr[number] :][: rows * columns]
    x, y = np.meshgrid(np.linspace(-half_x, half_x, columns), np.linspace(-half_y, half_y, rows))
    points = np.arange(rows * columns).reshape(rows, columns)
    corners = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return trimesh.Trimesh(np.stack([x.ravel(), y.ravel(), top * heights], 1), faces, process=False)


def _placed(model: mujoco.MjModel, geom: int) -> trimesh.Trimesh:
    """A geom's surface in the frame of its body, in its colour."""
    pose, turn = np.eye(4), np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    pose[:3, :3], pose[:3, 3] = turn.reshape(3, 3), model.geom_pos[geom]
    mesh = trimesh.graph.smooth_shade(mesh_of(model, geom), angle=_EDGE).apply_transform(pose)
    colour = np.uint8(np.round(255 * colour_of(model, geom)))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile(colour, (len(mesh.vertices), 1)))
    return mesh


def colour_of(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, " 4"]:
    """As MuJoCo chooses it: the geom's own where it has one, else its material's; of a texture the mean."""
    own, material = model.geom_rgba[geom], int(model.geom_matid[geom])
    if material < 0 or not np.allclose(own, (0.5, 0.5, 0.5, 1.0)):
        return own
    texture = int(model.mat_texid[material][mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture < 0 or model.tex_nchannel[texture] < 3:
        return model.mat_rgba[material]
    drawn = model.tex(texture)
    pixels = drawn.data.reshape(-1, model.tex_nchannel[texture])[:, :3]
    return model.mat_rgba[material] * [*(pixels.mean(0) / 255), 1.0]
